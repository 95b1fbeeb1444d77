"""Bundles out of Stable Diffusion checkpoints, in the order a checkpoint meets the files.

    hub, folder, single_file -> checkpoint -> embeddings -> lora -> networks -> attention -> live_graph -> half
    -> written -> bundle

`families` says which checkpoints work, `schedule` reads the noise levels, `published` holds the architectures that a
single file does not name. The networks themselves come from diffusers and transformers, which only this package
imports.
"""
