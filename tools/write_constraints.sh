#!/usr/bin/env bash
# Print constraints.txt for the environment of the Python given as the only argument: every version, exactly.
set -euo pipefail

cat <<EOF
# Every package of the development environment, its exact version. Made by \`make lock\` on $(date -u +%F), $("$1" --version).
# Builds of one version (+cpu, +cu130) are left open: pip takes the one that the machine's index settings offer.
EOF
"$1" -m pip freeze --all --exclude-editable --exclude pip | sed 's/+[a-z0-9.]*$//'
