#!/bin/sh
# A server of the Model Context Protocol with the tool `weather`, and with the faults that the first argument
# names. Lines are answered by the method that they name; the schema has one value, so that every model calls
# the tool alike.
fault=$1

result() {
  printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$1"
}

text() {
  result "{\"content\":[{\"type\":\"text\",\"text\":\"$1\"}]}"
}

call() {
  case "$fault" in
    die) echo "out of clouds" >&2; exit 3 ;;
    hang) exec sleep 100 ;;
    late)
      # The first call is answered together with the second.
      if [ -z "$held" ]; then
        held=$id
      else
        second=$id; id=$held; text "too late"; id=$second; text "sunny again"
      fi ;;
    garbage) echo "It is sunny." ;;
    huge) head -c 5000000 /dev/zero | tr '\0' x; echo ;;
    stranger) id=99; text "x" ;;
    error) printf '{"jsonrpc":"2.0","id":%s,"error":{"code":-32602,"message":"no such town"}}\n' "$id" ;;
    refuse) result '{"content":[{"type":"text","text":"no forecast"}],"isError":true}' ;;
    chatty)
      echo '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}'
      echo '{"jsonrpc":"2.0","id":"s1","method":"ping"}'
      read -r pong
      case "$pong" in *'"id": "s1", "result": {}'*) text "sunny, and pinged" ;; *) text "no pong: it says nothing" ;; esac ;;
    *) text "sunny in Bern" ;;
  esac
}

while read -r line; do
  id=${line#*\"id\": }
  id=${id%%,*}
  case "$line" in
    *'"method": "initialize"'*)
      case "$fault" in
        mute) exec sleep 100 ;;
        old) result '{"protocolVersion":"1999-01-01","capabilities":{"tools":{}},"serverInfo":{"name":"t","version":"1"}}' ;;
        toolless) result '{"protocolVersion":"2025-06-18","capabilities":{},"serverInfo":{"name":"t","version":"1"}}' ;;
        banner) echo "Server listening on stdio" ;;
        gone) echo "no licence" >&2; exit 7 ;;
        *) result '{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"t","version":"1"}}' ;;
      esac ;;
    *'"method": "tools/list"'*)
      tool='{"name":"weather","description":"Weather","inputSchema":{"type":"object","properties":{"city":{"enum":["Bern"]}},"required":["city"],"additionalProperties":false}}'
      case "$fault$line" in
        pages*'"cursor": "2"'*) result '{"tools":[{"name":"second","inputSchema":{"type":"object"}}]}' ;;
        pages*) result "{\"tools\":[$tool],\"nextCursor\":\"2\"}" ;;
        nameless*) result '{"tools":[{"name":"a b","inputSchema":{}}]}' ;;
        *) result "{\"tools\":[$tool]}" ;;
      esac ;;
    *'"method": "tools/call"'*)
      case "$line" in
        *'"name": "weather", "arguments": {"city": "Bern"}'*) call ;;
        *) text "a call of something else: $fault" ;;
      esac ;;
  esac
done
