#!/usr/bin/env bash
# Builds the image without a container engine or an image registry, starts it as an engine would (its user, its
# environment, process 1, its own network), and tests what an operator relies on.
# For Debian, as root: apt-get install --no-install-recommends buildah crun netavark debootstrap iproute2. Leaves nothing behind.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
work=$(mktemp -d)
B=(buildah --root "$work/store" --runroot "$work/run" --storage-driver vfs)
engine=
cleanup() {
    # Kill process 1, which ends all others. Killing unshare does not, not even with --kill-child, which a change of user undoes.
    [ -z "$engine" ] || pkill -KILL -P "$engine" || true
    "${B[@]}" rm --all >/dev/null 2>&1 || true
    "${B[@]}" rmi --all --force >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap cleanup EXIT

fail() { echo "FAILED: $*" >&2; [ ! -e "$work/err" ] || cat "$work/err" >&2; exit 1; }

echo "making a base image with Debian's Python"
debootstrap --variant=minbase --include=python3-minimal,python3-venv,python3-pip,ca-certificates trixie "$work/base" >"$work/log"
tar -C "$work/base" -cf "$work/base.tar" .
container=$("${B[@]}" from scratch)
"${B[@]}" add --quiet "$container" "$work/base.tar" / >/dev/null
"${B[@]}" config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
"${B[@]}" commit --quiet "$container" localhost/base >/dev/null
rm -rf "$work/base" "$work/base.tar"

echo "building"
# This machine's pip configuration, mounted, so that it does not get into the image.
{ echo "[global]"; for name in INDEX_URL CERT; do v=PIP_$name; [ -z "${!v:-}" ] || echo "${name,,} = ${!v}" | tr _ -; done; } >"$work/pip.conf"
mounts=(--volume "$work/pip.conf:/etc/pip.conf:ro")
for folder in /etc/ssl/certs /usr/local/share/ca-certificates; do [ ! -d "$folder" ] || mounts+=(--volume "$folder:$folder:ro"); done
"${B[@]}" bud --isolation chroot --network host --pull-never --format docker --build-arg BASE=localhost/base "${mounts[@]}" \
    --tag localhost/kafka-chat . >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }

container=$("${B[@]}" from --pull-never localhost/kafka-chat)
root=$("${B[@]}" mount "$container")
said() { "${B[@]}" inspect --type image --format "$1" localhost/kafka-chat; }
mapfile -t environment < <(said '{{range .Docker.Config.Env}}{{println .}}{{end}}' | sed '/^$/d')
mapfile -t command < <(said '{{range .Docker.Config.Entrypoint}}{{println .}}{{end}}{{range .Docker.Config.Cmd}}{{println .}}{{end}}' | sed '/^$/d')
mapfile -t healthcheck < <(said '{{range .Docker.Config.Healthcheck.Test}}{{println .}}{{end}}' | sed '1d; /^$/d')
user=$(said '{{.Docker.Config.User}}')
folder=$(said '{{.Docker.Config.WorkingDir}}')
echo "beside the base it has $(du -sm "$root/opt/kafka_chat" | cut -f1) MiB; it runs ${command[*]} as user $user in $folder"
[ ! -e "$root/opt/build" ] && [ ! -e "$root/src" ] && [ ! -e "$root/root/.cache" ] || fail "what builds is in the image"
[ -z "$(find "$root/opt/kafka_chat/lib"/*/site-packages -maxdepth 1 -iname 'pip*' -o -maxdepth 1 -iname 'hatch*' -o -maxdepth 1 -iname 'pytest*')" ] \
    || fail "what builds or tests is in it"
chroot "$root" sh -c 'for name in cc c++ gcc g++ clang make; do ! command -v $name || exit 1; done' || fail "it has a compiler"

# run VARIABLE=VALUE... -- ARGUMENT...: run the image as process 1; the arguments replace the image's own.
run() {
    local more=()
    while [ "${1:---}" != -- ]; do more+=("$1"); shift; done
    [ $# -eq 0 ] || shift
    [ $# -gt 0 ] || set -- "${command[@]:1}"
    exec env -i "${environment[@]}" ${more[@]+"${more[@]}"} \
        unshare --pid --net --mount --fork --mount-proc="$root/proc" \
        sh -c 'ip link set lo up; exec chroot --userspec="$1:$1" "$2" sh -c "cd $3; shift 3; exec \"\$@\"" sh "$@"' sh "$user" "$root" "$folder" "${command[0]}" "$@"
}
# begin ...: run it in the background and wait until it serves; $pid is then the container's process 1.
begin() {
    run "$@" >"$work/out" 2>"$work/err" &
    engine=$!
    for _ in $(seq 200); do grep -q "listening on" "$work/out" && break; kill -0 "$engine" || fail "it has ended"; sleep 0.1; done
    pid=$(pgrep -P "$engine")
    [ "$(ps -o uid= -p "$pid" | tr -d ' ')" = "$user" ] || fail "it runs as another user"
    grep -Eq "^NSpid:.*[[:space:]]1$" "/proc/$pid/status" || fail "it is not process 1"
    cat "$work/out"
}
# inside COMMAND...: run a command in the container, as an engine's exec does.
inside() {
    env -i "${environment[@]}" nsenter --target "$pid" --pid --net --mount chroot --userspec="$user:$user" "$root" "$@"
}
# end: stop it as an engine's stop does; sets $took to milliseconds.
end() {
    local began code=0
    began=$(date +%s%3N)
    kill -TERM "$pid"
    wait "$engine" || code=$?
    engine=
    took=$(($(date +%s%3N) - began))
    [ "$code" -eq 0 ] || fail "it ended with $code"
}

echo "1. without a broker: exit 2 and a sentence"
code=0
(run) >"$work/out" 2>"$work/err" || code=$?
cat "$work/err"
[ "$code" -eq 2 ] || fail "it ended with $code"
[ "$(wc -l <"$work/err")" -eq 1 ] && grep -q "no broker is named, and kafka.embedded is false" "$work/err" || fail "it says something else"

echo "2. with the embedded broker, asked for by a variable: a message, and SIGTERM"
begin KAFKA_CHAT_KAFKA__EMBEDDED=true
inside "${healthcheck[@]}" || fail "its health check fails"
cat >"$root/tmp/client.py" <<'CLIENT'
"""A client that follows the chat `global`, writes to it, and stays until it is told to go."""

import http.client

import trio
from trio_websocket import ConnectionClosed, open_websocket_url


def say(text):
    connection = http.client.HTTPConnection("127.0.0.1", 8001)
    body = '{"sender":"bob","text":"%s"}' % text
    connection.request("POST", "/send-message/chat/global", body, {"Content-Type": "application/json"})
    print("sent:", connection.getresponse().read().decode())


async def listen():
    async with open_websocket_url("ws://127.0.0.1:8001/receive-message/client/ann") as socket:
        say("hello")
        print("received:", await socket.get_message(), flush=True)
        try:
            await socket.get_message()
        except ConnectionClosed as closed:
            print("closed:", closed.reason.code, flush=True)


trio.run(listen)
CLIENT
inside python3 /tmp/client.py >"$work/client" 2>&1 &
client=$!
for _ in $(seq 100); do grep -q "received" "$work/client" && break; sleep 0.1; done
end
wait "$client" || true
cat "$work/client"
grep -q '^received: {"sender":"bob","text":"hello","tag":null,"chat":"global"}$' "$work/client" || fail "no message"
grep -q "^closed: 1012$" "$work/client" || fail "the client was not told"
echo "ended with 0, $took ms after SIGTERM"
[ "$took" -lt 5000 ] || fail "that is beyond server.drain_seconds"

echo "3. a config.yaml mounted where it runs is read"
echo "servr: {port: 8001}" >"$root$folder/config.yaml"
code=0
(run) >"$work/out" 2>"$work/err" || code=$?
cat "$work/err"
rm "$root$folder/config.yaml"
[ "$code" -eq 2 ] && grep -q "^kafka-chat: config.yaml, line 1: " "$work/err" || fail "it was not"

echo "4. asked for by a flag, two workers, and a client that never leaves"
begin -- serve --embedded --workers 2
cat >"$root/tmp/client.py" <<'CLIENT'
"""A client that says nothing any more, not even goodbye."""

import socket
import time

HANDSHAKE = "GET /receive-message/client/ann HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" \
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
connection = socket.create_connection(("127.0.0.1", 8001))
connection.sendall(HANDSHAKE.encode())
print(connection.recv(12).decode(), flush=True)
time.sleep(60)
CLIENT
inside python3 /tmp/client.py >"$work/client" 2>/dev/null &
client=$!
for _ in $(seq 100); do grep -q "HTTP/1.1 101" "$work/client" && break; sleep 0.1; done
end
wait "$client" 2>/dev/null || true  # it was killed with process 1
grep -q "HTTP/1.1 101" "$work/client" || fail "the client has not connected"
echo "ended with 0, $took ms after SIGTERM"
[ "$took" -lt 5000 ] || fail "that is beyond server.drain_seconds"

echo "all well"
