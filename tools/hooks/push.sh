#!/bin/sh
# Copies a checkpoint elsewhere: on_save="tools/hooks/push.sh DESTINATION" (anything rsync takes: host:path, /mnt/backup).
# It gets its real name there only when it is whole; what has that name already stays as it is, and the hook fails.
set -eu
destination=$1 checkpoint=$2
name=$(basename "$checkpoint")
case $destination in
*:*)
    at() { ssh "${destination%%:*}" "$1"; }
    path=${destination#*:}/$name
    ;;
*)
    at() { sh -c "$1"; }
    path=$destination/$name
    ;;
esac
if ! at "test ! -e '$path'"; then
    echo "$destination/$name is there already, perhaps of another run: nothing is copied; name another destination, or remove it" >&2
    exit 1
fi
at "rm -rf '$path.part' && mkdir -p '$path.part'" # what a copy that was cut off has left
if command -v rsync >/dev/null; then
    rsync -a "$checkpoint/" "$destination/$name.part/"
else
    case $destination in *:*) echo "$destination needs rsync, which is not installed" >&2 && exit 1 ;; esac
    cp -R "$checkpoint/." "$path.part"
fi
at "mv '$path.part' '$path'"
echo "copied to $destination/$name"
