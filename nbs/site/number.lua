-- A chapter's number is that of its file: 03_training.ipynb is headed "03 Training", as in the sidebar.

function Meta(meta)
  local number = pandoc.path.filename(quarto.doc.input_file):match('^(%d%d)_')
  if number and FORMAT:match('html') then
    local title = pandoc.Inlines { pandoc.Span(number, { class = 'chapter-number' }), pandoc.Space() }
    title:extend(meta.title)
    meta.title = title
  end
  return meta
end
