-- Three things that nbdev and Quarto don't do by themselves.
--
-- nbdev prints the signature of each symbol above its source. Where the source is on the page, the signature would
-- appear twice, so this filter removes it.
--
-- It also makes links of the names of symbols in signatures, where a link is not possible and would show as brackets.
--
-- The answer to a task is a folded cell and the text that follows it. Quarto folds the code only and would show its output
-- to a reader who is still thinking, so this filter folds all of the answer.

local function is_folded(block, summary) -- Whether it holds code that is folded under these words
  local found = false
  if block.t == 'Div' then
    block:walk { CodeBlock = function(code)
      found = found or code.attributes['code-summary'] == summary
    end }
  end
  return found
end

local function shows_source(block) return is_folded(block, 'Exported source') end

local function is_signature(block)
  return block.t == 'CodeBlock' and block.classes:includes('python') and not block.classes:includes('cell-code')
    and block.text:match('^def ') ~= nil
end

local function ends_answer(block) -- The next task starts with its number in bold
  return block.t == 'Header' or (block.t == 'Para' and block.content[1] and block.content[1].t == 'Strong'
    and pandoc.utils.stringify(block.content[1]):match('^%d+%.$') ~= nil)
end

local function unfolded(block)
  return block:walk { CodeBlock = function(code)
    code.attributes['code-fold'], code.attributes['code-summary'] = nil, nil
    return code
  end }
end

local function fold_answers(blocks)
  local kept, open = pandoc.List(), false
  local function close()
    if open then kept:insert(pandoc.RawBlock('html', '</details>')) end
    open = false
  end
  for _, block in ipairs(blocks) do
    if is_folded(block, 'Answer') then
      close()
      kept:insert(pandoc.RawBlock('html', '<details class="answer"><summary>Answer</summary>'))
      block, open = unfolded(block), true
    elseif ends_answer(block) then
      close()
    end
    kept:insert(block)
  end
  close()
  return kept
end

function CodeBlock(code)
  code.text = code.text:gsub('%[(`[%w_.]+`)%]%(https?://[^)]*%)', '%1')
  return code
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
  doc.blocks = FORMAT:match('html') and fold_answers(kept) or kept
  return doc
end
