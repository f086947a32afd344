// Choose the gene of the button that was pressed.
if (buttons.active !== null) gene.value = buttons.labels[buttons.active]
