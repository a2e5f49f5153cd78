-- index.ipynb becomes two things: a page of the site, beside the other pages, and README.md, one folder further up.
-- Its links are written as they are for the notebook itself. In README.md they lead to the same files; on the site, a link
-- that leaves the notebooks' folder leads to the repository.

local repository = 'https://github.com/s5-mnist/s5_mnist/blob/main/'

function Link(link)
  local outside = link.target:match('^%.%./(.*)$')
  if FORMAT:match('html') then
    if outside then link.target = repository .. outside end
  elseif outside then
    link.target = outside
  elseif not link.target:match('^%a+:') and not link.target:match('^[#/]') then
    link.target = 'nbs/' .. link.target
  end
  return link
end

function RawInline(raw) -- A picture as HTML
  if not FORMAT:match('html') then
    raw.text = raw.text:gsub('(<img src=")site/', '%1nbs/site/')
    return raw
  end
end
