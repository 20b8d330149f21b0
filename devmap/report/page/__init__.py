"""Plans and diffs as one self-contained HTML page: no network, no build step, readable without scripts."""
