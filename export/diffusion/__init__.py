"""Exporting Stable Diffusion checkpoints as bundles. A checkpoint passes the modules in this order:

    hub, folder, single_file -> checkpoint -> embeddings -> lora -> networks -> attention -> live_graph -> half
    -> written -> bundle

`families` decides which checkpoints are supported, `schedule` reads the noise levels, `published` has the architectures
for single files, which do not contain them. The networks come from diffusers and transformers, which only this package
imports.
"""
