"""One file per dataset, which registers it; the others hold what several of them share.

Reading params.yaml imports every file here, so what takes long to import is imported where it is used, or
lies in a folder below.
"""
