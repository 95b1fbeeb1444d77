"""LoRAs and their relatives: `names` finds layers, `strength` alpha / rank, `forms` the change of a layer's weights.

`merging` reads a file and adds it to the weights; `live` keeps low-rank changes as branches beside the layers.
"""
