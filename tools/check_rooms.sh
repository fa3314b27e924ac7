#!/bin/sh
# Whether every room stands on those below it alone: tools/check_rooms.sh DIR ROOM... (make check-rooms). DIR holds the
# objects; rooms are given bottom to top. A symbol that an object takes from a room above its own is named with both. The
# kernels, models and the base must link without the host.
set -u
dir=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Rows "D symbol room number" and "U symbol room number file".
number=0
for room in "$@"; do
    number=$((number + 1))
    for object in "$dir/$room"/*.o "$dir/cpu_ops_generic/$room"/*.o; do
        name=${object##*/}
        name=${name%.o}
        # Objects of files that are gone may lie there still.
        [ -e "$room/$name" ] || [ -e "$room/$name.c" ] || continue
        nm -P "$object" | awk -v room="$room" -v n="$number" -v file="${object#"$dir/"}" '
            $2 == "U" { print "U", $1, room, n, file; next }
            $2 ~ /^[TBDRVWC]$/ { print "D", $1, room, n }'
    done
done >"$work/symbols"

awk '
    $1 == "D" { at[$2] = $4; where[$2] = $3; next }
    { uses[++n] = $0 }
    END {
        for (i = 1; i <= n; i++) {
            split(uses[i], u, " ")
            if (!(u[2] in at)) continue
            links++
            if (at[u[2]] + 0 <= u[4] + 0) continue
            printf "%s (room %s) takes %s from %s, which stands above it\n", u[5], u[3], u[2], where[u[2]]
            up++
        }
        printf "%d rooms, %d links, %d reach up\n", rooms, links, up
        exit up > 0
    }' rooms=$# "$work/symbols"
