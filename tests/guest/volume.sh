# In the guest: the kernel's NBD client uses a volume, and then its clone.  volume.sh PORT TLS_PORT CERTIFICATES
#
# The clone is of a snapshot that the other side takes while this one writes, when it reads "guest: snapshot now".
set -euo pipefail
port=$1 tls_port=$2 certificates=$3
step() { echo "guest: $(cut -d' ' -f1 /proc/uptime) s: $1"; }
attach() { nbd-client 10.0.2.2 "$port" "$2" -N "$1" -b 512 "${@:3}" >/dev/null; }
# $1 file, $2 what to do with it, and more words for fio: blocks with a checksum and a place in each.
blocks() {
  fio --name=blocks --filename="$1" --size=8m --bs=4k --eta=never --ioengine=libaio --iodepth=16 --direct=1 --verify=crc32c \
    --verify_fatal=1 --output=/run/fio.log "${@:2}" || { cat /run/fio.log; return 1; }
}

step "attaches the volume, by two connections"
attach vm /dev/nbd0 -C 2
step "makes a file system"
mkfs.ext4 -q -E nodiscard /dev/nbd0
mkdir -p /mnt/volume /mnt/clone
mount /dev/nbd0 /mnt/volume
step "writes and verifies a file"
blocks /mnt/volume/before --rw=randwrite
sync -f /mnt/volume
step "writes on while the snapshot is taken"
blocks /mnt/volume/during --rw=randwrite --do_verify=0 --time_based --runtime=12 &
writer=$!
sleep 3
echo "guest: snapshot now"
until nbd-client -l 10.0.2.2 "$port" | grep -q '^clone'; do
  kill -0 "$writer" 2>/dev/null || { echo "guest: no clone came"; exit 1; }
  sleep 0.3
done
kill -0 "$writer" 2>/dev/null || { echo "guest: the snapshot was not taken under load"; exit 1; }
step "the clone is there; waits for the writer"
wait "$writer"
step "gives unused blocks back"
fstrim /mnt/volume
umount /mnt/volume
step "checks the file systems: the clone's as after a power cut"
e2fsck -fn /dev/nbd0
attach clone /dev/nbd1
# 1: the journal was replayed.
e2fsck -fy /dev/nbd1 || [ $? = 1 ]
e2fsck -fn /dev/nbd1
mount /dev/nbd1 /mnt/clone
step "verifies what was written before the snapshot, in the clone"
blocks /mnt/clone/before --rw=read --verify_only
blocks /mnt/clone/new --rw=randwrite
umount /mnt/clone
nbd-client -d /dev/nbd1 >/dev/null
nbd-client -d /dev/nbd0 >/dev/null
step "attaches the volume by TLS"
nbd-client 10.0.2.2 "$tls_port" /dev/nbd2 -N vm -b 512 -certfile "$certificates/client-cert.pem" -keyfile "$certificates/client-key.pem" \
  -cacertfile "$certificates/ca-cert.pem" -tlshostname localhost >/dev/null
e2fsck -fn /dev/nbd2
mount -o ro /dev/nbd2 /mnt/volume
blocks /mnt/volume/before --rw=read --verify_only
umount /mnt/volume
nbd-client -d /dev/nbd2 >/dev/null
step "done"
