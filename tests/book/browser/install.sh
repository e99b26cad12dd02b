#!/usr/bin/env bash
# What the site tests drive: Chromium, and two packages of Node.js. Where something cannot be had, the tests skip.
cd "$(dirname "$0")" || exit 1

find_chromium() {
    for c in "${CHROMIUM:-}" chromium chromium-browser google-chrome google-chrome-stable \
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"; do
        [ -n "$c" ] && command -v "$c" >/dev/null 2>&1 && return 0
    done
    return 1
}

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

if ! find_chromium && command -v apt-get >/dev/null 2>&1; then
    echo "Installing Chromium (Debian's package)"
    (as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium) \
        >/dev/null 2>&1 || echo "Chromium could not be installed; the site tests will be skipped"
fi
if ! command -v npm >/dev/null 2>&1; then
    echo "There is no npm; the site tests will be skipped"
elif [ ! -d node_modules/playwright-core ] || [ ! -d node_modules/axe-core ] || [ package.json -nt node_modules ]; then
    npm ci --silent --no-audit --no-fund >/dev/null 2>&1 && touch node_modules ||
        echo "The npm packages could not be installed; the site tests will be skipped"
fi
exit 0
