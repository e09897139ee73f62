# Makes the table of values in the chart's README from values.yaml: the comment above a value is its description.
# Fails where a value has none, or does not stand on one line.

function fail(why) { printf "values.yaml:%d: %s\n", NR, why >"/dev/stderr"; failed = 1; exit 1 }

BEGIN { print "| value | default | description |\n|---|---|---|" }

# The comment at the top speaks of the file.
NR == 1 { top = 1 }
/^ *$/ { top = 0; said = ""; next }
top { next }

/^ *#/ { sub(/^ *# ?/, ""); said = said (said == "" ? "" : " ") $0; next }

match($0, /^ *[A-Za-z]+:/) {
  depth = match($0, /[^ ]/) - 1
  if (depth % 2) fail("indent by two")
  line = substr($0, depth + 1)
  key = line; sub(/:.*/, "", key)
  value = line; sub(/^[A-Za-z]+: */, "", value)
  path[depth / 2] = key
  name = path[0]
  for (i = 1; i <= depth / 2; i++) name = name "." path[i]
  if (said == "") fail(name " has no description")
  gsub(/\|/, "\\|", said); gsub(/\|/, "\\|", value)
  if (value == "") printf "| **`%s`** | | %s |\n", name, said
  else printf "| `%s` | `%s` | %s |\n", name, value, said
  said = ""
  next
}

{ fail("not a value on one line: " $0) }
