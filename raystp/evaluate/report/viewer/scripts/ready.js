// Draw colour bars in the text colour of the page, which may change from light to dark.
const ink = () => {
  const colour = getComputedStyle(document.body).color
  for (const bar of bars) bar.setv({title_text_color: colour, major_label_text_color: colour})
}
ink()
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", ink)
new MutationObserver(ink).observe(document.documentElement, {attributes: true})

// A name that is typed replaces the one in the field.
const field = cb_context.index.find_one(gene).input_el
for (const entered of ["focus", "click"]) field.addEventListener(entered, () => field.select())
