#!/bin/busybox sh
# The first process of the emulated machine: runs the tests that are listed, and says at the end what came of them.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root RUST_BACKTRACE=0
export OVERLAY_BIN=/usr/bin/overlay OVERLAY_TEST_PATIENCE=20

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/net /dev/shm /dev/pts
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup /sys/fs/cgroup
# As a distribution loads them when it boots, or for a tool that asks; a namespace of a test cannot ask for all.
for module in tun veth vxlan bridge br_netfilter nf_tables nft_chain_nat nft_masq nf_conntrack nft_ct nft_compat \
    sch_ingress cls_bpf cls_u32 sch_netem sch_fq_codel; do
    modprobe "$module" || echo "init: this kernel has no module $module"
done
ip link set lo up

uname -r
# In a pipe, for the width of this terminal is not known.
overlay check --datastore file:/tmp/none | cat
exit=0
while read -r target filters; do
    echo "== $target $filters"
    # One at a time: two emulated processors are busy with one test. Unquoted, for each filter is a word.
    "/tests/$target" --test-threads=1 $filters < /dev/null || exit=1
done < /tests/list
echo "OVERLAY-TESTS-EXIT $exit"
poweroff -f
