-- Splits one line of comma separated values, with quoted fields.
local function fields(line)
  local out, rest = {}, line .. ","
  for quoted, plain in rest:gmatch('"?(.-)"?(,)') do out[#out + 1] = quoted end
  return out
end
return fields
