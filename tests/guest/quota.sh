# In the guest: a store on a file system with a disk quota, filled past it by a user of its own.  quota.sh SPINDLE
#
# A write past the quota fails by name, nothing of it stays, and the store is whole.
set -euo pipefail
spindle=$1
folder=/mnt/quota
store=$folder/user/store.img
limit=24576 # KiB
step() { echo "guest: $(cut -d' ' -f1 /proc/uptime) s: $1"; }
fail() { echo "guest: $1" >&2; exit 1; }
# As the user that the quota counts for.
user() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
blob() { user "$spindle" blob "$@"; }
# KiB that the user has on the file system.
used() { du -sk $folder/user | cut -f1; }
# $1 what is done, and then a command, that must fail with an error of the quota and leave no file larger or smaller.
refused() {
  local what=$1 before status=0
  shift
  before=$(used)
  "$@" >/run/refused.log 2>&1 </dev/null || status=$?
  [ "$status" = 1 ] || { cat /run/refused.log; fail "$what ended with status $status past the quota"; }
  grep -qi quota /run/refused.log || { cat /run/refused.log; fail "$what does not name the quota"; }
  [ "$(used)" -le $((before + 1024)) ] || fail "$what left $(($(used) - before)) KiB behind"
  status=0
  blob check $store >/run/check.log 2>&1 || status=$?
  [ "$status" = 0 ] || { cat /run/check.log; fail "the store is not whole after $what"; }
}

step "makes a file system with a quota of $limit KiB for a user"
truncate -s 128M /run/disk.img
mkfs.ext4 -q -O quota -E quotatype=usrquota /run/disk.img
mkdir -p $folder
mount -o loop,usrquota /run/disk.img $folder
setquota -u 65534 0 $limit 0 0 $folder
mkdir $folder/user
chown 65534:65534 $folder/user

step "makes a store and a blob within the quota"
user truncate -s 96M $store
blob init --cluster-size 1M $store >/dev/null
head -c 4M /dev/urandom >/run/input
chmod 644 /run/input
blob import $store /run/input --create --name kept >/dev/null 2>&1

step "goes past the quota"
refused "a thick blob" blob create $store --name thick --size 64M
head -c 40M /dev/urandom >/run/large
chmod 644 /run/large
refused "an import" blob import $store /run/large --create

step "reads back what was there before"
blob export $store kept - 2>/dev/null | cmp - /run/input || fail "the blob that was there reads otherwise"
blob ls $store
umount $folder
step "done"
