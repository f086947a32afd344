"""What the headers of a TIFF state: its picture, levels, um/px and colours; OME-XML and ImageJ included."""
