// Draw the chosen gene, or the mean of the chosen set, on the chosen slide. Runs when a widget changes.
// Arguments: the widgets gene, buttons, slide, layers and opacity; source, image, x_range and y_range; and a list with
// one model per panel: figures, circles, squares, mappers, bars, hovers.
const MISSING = 255
const maps = (window.raystpMaps ??= {...JSON.parse(document.getElementById("maps-data").textContent), turn: 0, stored: {}})

const inflate = async (id) => {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (c) => c.charCodeAt(0))
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer()
}
const stored = (id) => (maps.stored[id] ??= inflate(id))
const floats = async (id) => new Float32Array(await stored(id))

// The values of a gene: lowest value + code x step; a missing value is NaN.
const decoded = (buffer, genes, gene, spots) => {
  const scale = new Float32Array(buffer, 0, 2 * genes)
  const codes = new Uint8Array(buffer, 8 * genes + gene * spots, spots)
  return Array.from(codes, (code) => (code === MISSING ? NaN : scale[gene] + code * scale[genes + gene]))
}
const valuesOf = async (number, layer, gene, spots) => {
  const buffer = await stored(`maps-${number}-${layer}`)
  return decoded(buffer, maps.slides[number].layers[layer], gene, spots)
}

// What the reference tiles measured of a gene.
const referenceOf = async (gene) => {
  const {genes, tiles} = maps.measured
  if (gene >= genes) return null
  const buffer = await stored("maps-references")
  return decoded(buffer, genes, gene, tiles)
}

// The mean over genes, of those that a spot has.
const meanOf = (columns, spots) =>
  Array.from({length: spots}, (_, spot) => {
    const known = columns.map((column) => column[spot]).filter((value) => !Number.isNaN(value))
    return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : NaN
  })

// Of a set on a measured section: the mean over the genes that the section has measured, as in the measured mean.
const meanWhereMeasured = (predicted, measured, whole) => {
  const own = predicted.map((values, gene) => values.map((value, spot) => (Number.isNaN(measured[gene][spot]) ? NaN : value)))
  return meanOf(own, whole.length).map((value, spot) => (Number.isNaN(value) ? whole[spot] : value))
}

const percentiles = (values) => {
  const known = values.filter((value) => !Number.isNaN(value)).sort((a, b) => a - b)
  if (!known.length) return [0, 1]
  const at = (share) => known[Math.round(share * (known.length - 1))]
  const [low, high] = at(0.02) < at(0.98) ? [at(0.02), at(0.98)] : [known[0], known[known.length - 1]]
  return high > low ? [low, high] : [low, low + 1]
}

// Measured and predicted have the limits of the measurement; a prediction with less than half of that range its own.
const limitsOf = (layer, columns) => {
  const own = percentiles(columns[layer])
  if (layer === "error") {
    const most = Math.max(...own.map(Math.abs))
    return {limits: [-most, most], note: ""}
  }
  if (layer !== "predicted" || !columns.measured) return {limits: own, note: ""}
  const shared = percentiles(columns.measured)
  const narrow = own[1] - own[0] < 0.5 * (shared[1] - shared[0])
  return narrow ? {limits: own, note: " (own, narrower scale)"} : {limits: shared, note: ""}
}

const number = maps.slides.findIndex((one) => one.name === slide.value)
const chosen = maps.slides[number]
const spots = chosen.spots
const typed = gene.value.trim().toLowerCase()
const set = maps.sets.find((one) => one.name.toLowerCase() === typed)
const genes = set ? set.genes : [maps.genes.findIndex((one) => one.toLowerCase() === typed)]
const name = set ? set.name : maps.genes[genes[0]]
const turn = ++maps.turn

const show = async () => {
  const columns = {}
  const single = {}
  const absent = []
  for (const [layer, kept] of Object.entries(chosen.layers)) {
    const held = genes.filter((one) => one < kept)
    if (held.length < genes.length) absent.push(layer)
    if (!held.length) continue
    const parts = await Promise.all(held.map((one) => valuesOf(number, layer, one, spots)))
    single[layer] = parts
    columns[layer] = parts.length === 1 ? parts[0] : meanOf(parts, spots)
  }
  if (columns.measured && columns.predicted) {
    if (set) columns.predicted = meanWhereMeasured(single.predicted, single.measured, columns.predicted)
    columns.error = columns.predicted.map((value, spot) => value - columns.measured[spot])
  }
  if (chosen.distance) {
    const distance = await floats(`maps-${number}-distance`)
    columns.far = Array.from(distance, (value) => value / (chosen.beyond ?? 1))
  }
  const places = await floats(`maps-${number}-xy`)
  const scores = chosen.scored ? await floats(`maps-${number}-scores`) : null
  if (turn !== maps.turn) return // another choice was made meanwhile
  draw(columns, places)
  tell(columns, scores, absent)
}

const draw = (columns, places) => {
  const none = () => new Array(spots).fill(NaN)
  const far = columns.far && chosen.beyond ? columns.far.map((value) => value > 1) : new Array(spots).fill(false)
  const data = Object.fromEntries(maps.layers.map((layer) => [layer.name, columns[layer.name] ?? none()]))
  data.x = Array.from(places.subarray(0, spots))
  data.y = Array.from(places.subarray(spots))
  data.size = new Array(spots).fill(chosen.size)
  data.radius = new Array(spots).fill(chosen.size / 2)
  data.edge = far.map((value) => (value ? 2 : 0))
  data.name = chosen.names ?? Array.from({length: spots}, (_, tile) => `tile ${tile}`)
  if (maps.shown !== number) {
    source.selected.indices = []
    image.data = {url: [chosen.image], x: [0], y: [0], w: [chosen.width], h: [chosen.height]}
    fit(chosen.view, figures[0])
  }
  source.data = data
  maps.shown = number
  Object.assign(maps, {chosen, number, floats, reference: async () => (set ? null : referenceOf(genes[0])), name})
  maps.explain?.()
  figures.forEach((_, at) => paint(at, layers[at].value, columns))
}

// Show the whole section with one scale on both axes; y is down.
const fit = ([left, top, right, bottom], figure) => {
  const ratio = (figure.inner_height || 1) / (figure.inner_width || 1)
  const width = Math.max(right - left, (bottom - top) / ratio)
  const [x, y] = [(left + right) / 2, (top + bottom) / 2]
  const [w, h] = [width / 2, (width * ratio) / 2]
  x_range.setv({start: x - w, end: x + w, reset_start: x - w, reset_end: x + w})
  y_range.setv({start: y + h, end: y - h, reset_start: y + h, reset_end: y - h})
}

const paint = (at, title, columns) => {
  const layer = maps.layers.find((one) => one.title === title)
  const known = Boolean(columns[layer?.name])
  const shapes = {circle: circles[at], square: squares[at]}
  for (const [shape, drawn] of Object.entries(shapes)) drawn.visible = known && chosen.shape === shape
  bars[at].major_label_text_alpha = known ? 1 : 0.01
  if (!known) {
    // The colour bar keeps its room: without it this map alone would change its scale.
    mappers[at].palette = ["#00000000"]
    bars[at].title = layer ? "not known on this slide" : "no layer"
    return
  }
  const {limits, note} = limitsOf(layer.name, columns)
  mappers[at].setv({palette: maps.palettes[layer.palette], low: limits[0], high: limits[1]})
  bars[at].title = `${layer.unit}${note}`
  const fill = {fill_color: {field: layer.name, transform: mappers[at]}, fill_alpha: opacity.value}
  for (const drawn of Object.values(shapes)) [drawn.glyph, drawn.selection_glyph].forEach((glyph) => glyph.setv(fill))
  const rows = maps.layers.filter((one) => columns[one.name]).map((one) => [one.title, `@${one.name}{0.${"0".repeat(one.digits)}}`])
  hovers[at].tooltips = [["", "@name"], ...rows]
}

const tell = (columns, scores, absent) => {
  const text = []
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length
  const known = (values) => values.filter((value) => !Number.isNaN(value))
  if (scores) {
    const all = maps.genes.length
    const of = set ? all + maps.sets.indexOf(set) : genes[0]
    const total = all + maps.sets.length
    const [pcc, low, high] = [0, 1, 2].map((row) => scores[row * total + of])
    if (Number.isNaN(pcc)) text.push("Not measured in this section, so there is no PCC.")
    else {
      const others = known(Array.from(scores.subarray(0, all)))
      const lower = Math.round((100 * others.filter((one) => one < pcc).length) / others.length)
      const interval = Number.isNaN(low) ? "" : ` [${low.toFixed(2)}, ${high.toFixed(2)}]`
      text.push(`PCC ${pcc.toFixed(2)}${interval} over ${known(columns.error ?? []).length} spots: higher than ${lower} % of the panel's genes here.`)
      if (Number.isNaN(low)) text.push("There are too few spots for an interval.")
      else if (low > 0) text.push("The interval is above 0: the map agrees with the measurement beyond chance.")
      else text.push("The interval includes 0: this map is not shown to agree with the measurement.")
    }
    const errors = known(columns.error ?? []).map(Math.abs)
    if (errors.length) text.push(`Mean absolute error ${mean(errors).toFixed(2)} ${maps.unit}.`)
  } else text.push("Nothing was measured on this slide, so its map has no score of its own.")
  if (chosen.beyond) {
    const far = columns.far.filter((value) => value > 1).length
    text.push(`${far} of ${spots} are far from the reference${far ? " (outlined)" : ""}.`)
  }
  if (absent.length) text.push(`Left out of this file for its size: ${absent.join(", ")}${set ? " of some genes" : ""}.`)
  document.getElementById("maps-name").textContent = `${name} on ${chosen.name}`
  document.getElementById("maps-belief").textContent = text.join(" ")
  document.getElementById("maps-note").textContent = chosen.note
  buttons.active = buttons.labels.includes(name) ? buttons.labels.indexOf(name) : null
}

if (name) show()
else {
  const text = `There is no gene or gene set "${gene.value}" here; the panel has ${maps.genes.length} genes.`
  document.getElementById("maps-belief").textContent = text
}
