#!/bin/sh
# Certificates and a token for the way from agents to gateways (agent.yaml, gateway.yaml). It needs OpenSSL only.
#
#   sh make-credentials.sh FOLDER NAME...
#
# A NAME is what agents call a gateway: its host name or IP address, as in POOLSCOPE_GATEWAYS. In FOLDER it writes:
#
#   ca.crt                     for every agent (POOLSCOPE_TLS_CA)
#   token                      for every agent and every gateway (POOLSCOPE_TOKEN_FILE)
#   gateway.crt, gateway.key   for every gateway (POOLSCOPE_TLS_CERT, POOLSCOPE_TLS_KEY)
#   ca.key                     signs certificates: for no agent and no gateway; keep it offline
#
# Run again with the same FOLDER, it keeps the authority and the token and makes a new gateway.crt: before the old one
# expires (398 days), or for more names. Agents go on as they are; gateways read the new files within an hour.
set -eu
[ $# -ge 2 ] || { echo "usage: sh make-credentials.sh FOLDER NAME..." >&2; exit 2; }
umask 077
mkdir -p "$1"
cd "$1"
shift

names=
for name in "$@"; do
    case $name in
    *:*) names=$names,IP:$name ;;
    *[!0-9.]*) names=$names,DNS:$name ;;
    *) names=$names,IP:$name ;;
    esac
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Whole settings of our own: what OpenSSL's file of defaults adds differs between systems.
cat >"$work/settings" <<END
[req]
prompt = no
distinguished_name = subject
[subject]
CN = poolscope
[authority]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[gateway]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = ${names#,}
END

key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null; }

if [ ! -e ca.key ]; then
    key "$work/ca.key"
    openssl req -x509 -new -key "$work/ca.key" -sha256 -days 3650 -config "$work/settings" -extensions authority \
        -out ca.crt
    mv "$work/ca.key" ca.key
fi
key "$work/gateway.key"
openssl req -new -key "$work/gateway.key" -config "$work/settings" -out "$work/request"
openssl x509 -req -in "$work/request" -CA ca.crt -CAkey ca.key -set_serial "0x$(openssl rand -hex 16)" -sha256 -days 398 \
    -extfile "$work/settings" -extensions gateway -out "$work/gateway.crt" 2>/dev/null
mv "$work/gateway.key" "$work/gateway.crt" .
[ -e token ] || { openssl rand -hex 32 >"$work/token" && mv "$work/token" token; }
chmod 644 ca.crt gateway.crt
