// Say why the clicked spot has its prediction: its nearest reference tiles, or its attention. Text only, no HTML.
const maps = window.raystpMaps
const place = document.getElementById("maps-why")

const element = (tag, text, parts = []) => {
  const made = document.createElement(tag)
  if (text) made.textContent = text
  made.append(...parts)
  return made
}
const shown = (value) => (Number.isNaN(value) ? "not known" : value.toFixed(2))

// The spot's own tissue: its picture, else cut from the thumbnail by the browser.
const tissue = (spot) => {
  const {chosen} = maps
  const caption = element("figcaption", "this spot")
  if (chosen.pictures) {
    const image = Object.assign(element("img"), {src: chosen.pictures[spot], alt: "tissue of this spot"})
    image.className = "maps-tile"
    return element("figure", "", [image, caption])
  }
  const [side, px] = [Math.max(chosen.size * 1.5, 1), 96]
  const scale = px / side
  const picture = element("div")
  picture.className = "maps-tile"
  picture.style.backgroundImage = `url(${chosen.image})`
  picture.style.backgroundSize = `${chosen.width * scale}px ${chosen.height * scale}px`
  const [left, top] = [source.data.x[spot] - side / 2, source.data.y[spot] - side / 2]
  picture.style.backgroundPosition = `${-left * scale}px ${-top * scale}px`
  return element("figure", "", [picture, caption])
}

const neighbour = (tile, distance, measured) => {
  const {section, patient, spot, picture} = maps.references[tile]
  const lines = [`${section}, patient ${patient}`, `spot ${spot}`, `distance ${distance.toFixed(3)}`]
  if (measured && tile < measured.length) lines.push(`${maps.name} ${shown(measured[tile])}`)
  const image = picture ? element("img") : element("div", "no picture in this file")
  if (picture) Object.assign(image, {src: picture, alt: `tissue of ${section}, ${spot}`})
  image.className = "maps-tile"
  return element("figure", "", [image, element("figcaption", "", lines.map((line) => element("div", line)))])
}

// How much a tile counts, and its rank among all tiles of the slide.
const part = (spot) => ([layer, meaning]) => {
  const values = Array.from(source.data[layer])
  if (Number.isNaN(values[spot])) return ""
  const rank = 1 + values.filter((value) => value > values[spot]).length
  return `Its ${layer} (${meaning}) is ${values[spot].toPrecision(3)}, number ${rank} of ${values.length} tiles.`
}

const why = async (spot) => {
  const {chosen, number} = maps
  const tiles = [tissue(spot)]
  let text = "This model keeps no reason for a single prediction: it uses all of its training data."
  if (chosen.attention) text = [["attention", "share of the slide's prediction"], ["contribution", "part of the value"]].map(part(spot)).join(" ")
  if (chosen.nearest) {
    const [near, measured] = [await maps.floats(`maps-${number}-nearest`), await maps.reference()]
    const at = (row, half) => near[(half * chosen.nearest + row) * chosen.spots + spot]
    for (let row = 0; row < chosen.nearest; row++) tiles.push(neighbour(at(row, 0), at(row, 1), measured))
    text = `The tiles of the reference that look most like this one to the model, and what was measured there.`
  }
  const values = maps.layers.map((layer) => [layer, source.data[layer.name][spot]]).filter(([, value]) => !Number.isNaN(value))
  const known = values.map(([layer, value]) => `${layer.title} ${value.toFixed(layer.digits)}`).join(", ")
  return [element("h3", `Why? ${source.data.name[spot]}`), element("p", `${maps.name}: ${known}.`), element("p", text),
    element("div", "", tiles)]
}

maps.explain = async () => {
  const [spot] = source.selected.indices
  const parts = spot === undefined ? [element("p", "Click a spot to see why it has its prediction.")] : await why(spot)
  if (spot === source.selected.indices[0]) place.replaceChildren(...parts)
}
maps.explain()
