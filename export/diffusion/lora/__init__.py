"""LoRAs and their relatives: `names` finds layers, `strength` alpha over rank, `forms` what a layer becomes.

`merging` reads a file and adds it to the weights; `live` keeps the low-rank ones beside the layers instead.
"""
