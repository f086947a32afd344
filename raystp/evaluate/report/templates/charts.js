// Draw each chart from the JSON beside its place.
for (const script of document.querySelectorAll("script[data-chart]"))
  Bokeh.embed.embed_item(JSON.parse(script.textContent), script.dataset.chart);
