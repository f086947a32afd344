// Keep one scale on both axes where a panel has changed its size.
const figure = cb_obj
if (figure.inner_width > 0 && figure.inner_height > 0) {
  const height = ((x_range.end - x_range.start) * figure.inner_height) / figure.inner_width
  const middle = (y_range.start + y_range.end) / 2
  y_range.setv({start: middle + height / 2, end: middle - height / 2})
}
