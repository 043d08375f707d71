"""Stand-in."""


def find_blocks(net, layers, blocks=None):
    if blocks:
        return list(blocks)
    prefix = ""
    while not hasattr(net, "feature_info") and hasattr(net, "net"):
        net, prefix = net.net, prefix + "net."
    return [prefix + e["module"] for e in net.feature_info if e["kind"] == "block"]
