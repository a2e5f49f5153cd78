-- nbdev prints the signature of each symbol above its source. Where the source is on the page, the signature would
-- appear twice, so this filter removes it.

local function shows_source(block)
  local found = false
  if block.t == 'Div' then
    block:walk { CodeBlock = function(code)
      found = found or code.attributes['code-summary'] == 'Exported source'
    end }
  end
  return found
end

local function is_signature(block)
  return block.t == 'CodeBlock' and block.classes:includes('python') and not block.classes:includes('cell-code')
    and block.text:match('^def ') ~= nil
end

function Pandoc(doc)
  local kept, pending = pandoc.List(), nil
  for _, block in ipairs(doc.blocks) do
    if is_signature(block) then
      pending = #kept + 1
    elseif block.t == 'Header' or (block.t == 'Div' and not shows_source(block)) then
      pending = nil
    elseif pending and shows_source(block) then
      kept:remove(pending)
      pending = nil
    end
    kept:insert(block)
  end
  doc.blocks = kept
  return doc
end
