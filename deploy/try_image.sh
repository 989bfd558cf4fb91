#!/usr/bin/env bash
# Builds the image without a container engine or a registry of images, starts it, and tries what an operator relies on.
# For Debian, as root: needs buildah, crun, netavark, debootstrap, curl. Leaves nothing behind.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
work=$(mktemp -d)
B=(buildah --root "$work/store" --runroot "$work/run" --storage-driver vfs)
pid=
cleanup() {
    [ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || true
    "${B[@]}" rm --all >/dev/null 2>&1 || true
    "${B[@]}" rmi --all --force >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap cleanup EXIT

echo "making a base image with Debian's Python"
debootstrap --variant=minbase --include=python3-minimal,python3-venv,python3-pip,ca-certificates trixie "$work/base" >"$work/log"
tar -C "$work/base" -cf "$work/base.tar" .
container=$("${B[@]}" from scratch)
"${B[@]}" add --quiet "$container" "$work/base.tar" / >/dev/null
"${B[@]}" config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
"${B[@]}" commit --quiet "$container" localhost/base >/dev/null
rm -rf "$work/base" "$work/base.tar"

echo "building"
certificates=()
[ ! -d /usr/local/share/ca-certificates ] || certificates=(-v /etc/ssl/certs:/etc/ssl/certs:ro -v /usr/local/share/ca-certificates:/usr/local/share/ca-certificates:ro)
for name in PIP_INDEX_URL PIP_CERT REQUESTS_CA_BUNDLE SSL_CERT_FILE; do
    [ -z "${!name:-}" ] || certificates+=(--env "$name=${!name}")
done
"${B[@]}" bud --isolation chroot --network host --pull-never --format docker --build-arg BASE=localhost/base "${certificates[@]}" -t localhost/kafka-chat . >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }

container=$("${B[@]}" from --pull-never localhost/kafka-chat)
root=$("${B[@]}" mount "$container")
echo "size of what the base does not have: $(du -sm "$root/opt/kafka_chat" | cut -f1) MiB"
! ls "$root"/opt/kafka_chat/bin/pip* 2>/dev/null
! chroot "$root" sh -c 'command -v gcc || command -v cc'

run() { "${B[@]}" run --isolation chroot --network host "$@"; }

echo "without a broker: exit 2 and a sentence"
code=0
run "$container" kafka-chat serve >"$work/out" 2>&1 || code=$?
cat "$work/out"
grep -q "no broker is named, and kafka.embedded is false" "$work/out"
[ "$code" -eq 2 ]

echo "with the embedded broker: serves, not as root, and ends on SIGTERM with 0"
run --env KAFKA_CHAT_KAFKA__EMBEDDED=true --env KAFKA_CHAT_SERVER__HOST=127.0.0.1 --env KAFKA_CHAT_SERVER__PORT=18001 \
    "$container" sh -c 'echo $$ >/tmp/pid; exec kafka-chat serve' >"$work/out" 2>"$work/err" &
buildah_pid=$!
for _ in $(seq 100); do grep -q "listening on" "$work/out" && break; sleep 0.1; done
cat "$work/out"
pid=$(pgrep -f '^/opt/kafka_chat/bin/python.*/kafka-chat serve' | head -1)
echo "runs as user $(ps -o uid= -p "$pid" | tr -d ' ')"
[ "$(ps -o uid= -p "$pid" | tr -d ' ')" = 10001 ]
[ "$(curl -sf http://127.0.0.1:18001/health)" = '{"status":"Consumer is running"}' ]
curl -sf -H 'Content-Type: application/json' -d '{"sender":"ann","text":"hi"}' http://127.0.0.1:18001/send-message/chat/global >/dev/null
status=$(curl -s -o /dev/null -w '%{http_code}' --max-time 2 -H 'Connection: Upgrade' -H 'Upgrade: websocket' \
    -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' \
    http://127.0.0.1:18001/receive-message/client/ann || true)  # it stays open, so curl runs into its limit
[ "$status" = 101 ]
kill -TERM "$pid"
wait "$buildah_pid"
pid=
echo "all well"
