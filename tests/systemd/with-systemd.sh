#!/bin/bash
# Boots a throw-away, real systemd as process 1 of private namespaces, over an overlay of this machine's root.
#
#   with-systemd.sh boot [-b SRC:DST]...    prints "up PID" when it has booted; ends it at the end of standard input
#   with-systemd.sh in PID CMD [ARG...]     runs a command in it, as root, beside its services
#
# -b binds SRC read-only on DST inside. Exit status of boot: 0; 77 = this machine cannot do it (stderr says why);
# 97 = it did not come up. Needs root with CAP_SYS_ADMIN, unshare, nsenter, overlayfs and cgroup2. Nothing outside of the
# new namespaces changes, but for one cgroup of our own, procd-test-PID, which is removed at the end.
set -u
BOOT_SECONDS=20
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

cannot() {
    echo "with-systemd: $*" >&2
    exit 77
}

# ---- in: join the namespaces of PID, in a cgroup beside its services

enter() {
    local init=$1
    shift
    exec nsenter -t "$init" -m -p -i -u -n -C -r -w bash -c 'echo $$ > /sys/fs/cgroup/shell/cgroup.procs; exec "$@"' x \
        env -i PATH=$PATH HOME=/root LANG=C.UTF-8 TERM=dumb SYSTEMD_PAGER= SYSTEMD_COLORS=0 "$@"
}

# ---- boot, first: what can be known beforehand; then namespaces of our own

boot() {
    [ "$(id -u)" = 0 ] || cannot "only root can"
    [ -x /lib/systemd/systemd ] || cannot "no systemd is installed"
    unshare --mount --ipc --uts --net --propagation private true 2>/dev/null || cannot "the kernel gives no namespaces"
    # PDEATHSIG: whoever started us may be killed
    exec setpriv --pdeathsig TERM unshare --mount --ipc --uts --net --propagation private "$0" prepare "$@"
}

# ---- boot, second: a root file system, a cgroup, a process 1; then wait

prepare() {
    local work=/mnt name=procd-test-$$
    status=97 init= launcher= # not local: finish looks at them
    mount -t tmpfs -o mode=755,size=2g procd-test $work || cannot "no tmpfs can be mounted"
    mkdir $work/cgroup $work/upper $work/upper/files $work/upper/work $work/root
    mount -t cgroup2 cgroup2 $work/cgroup || cannot "no cgroup2 can be mounted"
    CGROUP=$work/cgroup/$name ROOT=$work/root
    for left in "$work"/cgroup/procd-test-*; do # of a run that was killed
        [ -d "$left" ] && [ ! -e "/proc/${left##*-}" ] && find "$left" -depth -type d -exec rmdir {} + 2>/dev/null
    done
    mkdir "$CGROUP" "$CGROUP/shell" || cannot "no cgroup can be made"
    trap 'finish' EXIT
    trap 'exit' TERM INT HUP
    mount -t overlay overlay -o lowerdir=/,upperdir=$work/upper/files,workdir=$work/upper/work "$ROOT" \
        || { status=77; echo "with-systemd: no overlay can be mounted" >&2; exit; }
    ip link set lo up 2>/dev/null
    furnish
    while [ $# -gt 1 ] && [ "$1" = -b ]; do
        mkdir -p "$ROOT${2#*:}"
        mount --bind "${2%%:*}" "$ROOT${2#*:}" && mount -o remount,bind,ro "$ROOT${2#*:}"
        shift 2
    done
    export CGROUP ROOT
    setpriv --pdeathsig KILL unshare --pid --fork --kill-child --mount --propagation private "$0" become </dev/null >/dev/null 2>&1 &
    launcher=$!
    wait_up || { status=97; exit; }
    status=0
    echo "up $init"
    cat <&0 >/dev/null & # in the background, so that a TERM is heard
    wait $!
    # in order, so that stops are honoured; what is left then is killed
    ("$0" in "$init" timeout 5 systemctl --no-block --quiet exit) 2>/dev/null
    for _ in $(seq 80); do kill -0 $launcher 2>/dev/null || break; sleep 0.05; done
}

wait_up() {
    local state=
    for _ in $(seq $((BOOT_SECONDS * 20))); do
        kill -0 $launcher 2>/dev/null || break
        init=$(awk '{print $1}' "/proc/$launcher/task/$launcher/children" 2>/dev/null)
        if [ -n "$init" ] && [ -S "/proc/$init/root/run/systemd/private" ]; then
            state=$("$0" in "$init" systemctl is-system-running 2>/dev/null)
            case $state in running | degraded) return 0 ;; esac
        fi
        sleep 0.05
    done
    echo "with-systemd: systemd did not come up: ${state:-it ended}" >&2
    [ -n "$state" ] && "$0" in "$init" systemctl list-jobs >&2
    return 1
}

finish() {
    trap - EXIT TERM INT HUP
    echo 1 >"$CGROUP/cgroup.kill" 2>/dev/null
    for _ in $(seq 100); do grep -q 'populated 0' "$CGROUP/cgroup.events" && break; sleep 0.05; done
    [ -n "$launcher" ] && wait "$launcher" 2>/dev/null
    find "$CGROUP" -depth -type d -exec rmdir {} + 2>/dev/null
    [ -d "$CGROUP" ] && echo "with-systemd: cgroup $CGROUP is left behind" >&2
    exit $status
}

# Devices, and as few units as a boot takes: basic.target and the journal.
furnish() {
    local r=$ROOT unit device
    mkdir -p $r/proc $r/sys $r/dev $r/run $r/tmp $r/var/log $r/etc/systemd/system
    mount -t tmpfs -o mode=755,nosuid,nodev tmpfs $r/run
    mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs $r/tmp
    mount -t tmpfs -o mode=755,nosuid tmpfs $r/dev
    mkdir -p $r/run/lock $r/dev/pts $r/dev/shm $r/dev/mqueue
    for device in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
        # shellcheck disable=SC2046
        mknod -m 666 "$r/dev/${device%%:*}" c $(tr : ' ' <<<"${device#*:}")
    done
    ln -s /proc/self/fd $r/dev/fd
    ln -s fd/0 $r/dev/stdin
    ln -s fd/1 $r/dev/stdout
    ln -s fd/2 $r/dev/stderr
    ln -s pts/ptmx $r/dev/ptmx
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts $r/dev/pts
    mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs $r/dev/shm
    mount -t mqueue mqueue $r/dev/mqueue
    mount -t sysfs -o ro,nosuid,noexec,nodev sysfs $r/sys
    rm -rf $r/etc/systemd/system/*.wants $r/etc/fstab
    : >$r/etc/fstab
    printf '[Unit]\nRequires=basic.target\nAfter=basic.target\nAllowIsolate=yes\n' \
        >$r/etc/systemd/system/test.target
    for unit in timers.target getty.target systemd-udevd.service systemd-udev-trigger.service systemd-hwdb-update.service \
        systemd-firstboot.service ldconfig.service systemd-journal-catalog-update.service systemd-update-done.service \
        systemd-timesyncd.service e2scrub_reap.service systemd-pcrphase.service systemd-modules-load.service \
        systemd-resolved.service systemd-networkd.service systemd-networkd.socket \
        dev-hugepages.mount sys-fs-fuse-connections.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
        sys-kernel-config.mount proc-sys-fs-binfmt_misc.automount modprobe@{configfs,dm_mod,loop,drm,efi_pstore,fuse}.service; do
        ln -sf /dev/null "$r/etc/systemd/system/$unit"
    done
    mkdir -p $r/etc/systemd/journald.conf.d $r/etc/systemd/system.conf.d
    printf '[Journal]\nStorage=volatile\nRateLimitBurst=0\nForwardToConsole=no\nForwardToWall=no\n' \
        >$r/etc/systemd/journald.conf.d/test.conf
    printf '[Manager]\nShowStatus=no\nLogLevel=info\n' >$r/etc/systemd/system.conf.d/test.conf
    tr -d - </proc/sys/kernel/random/uuid >$r/etc/machine-id
}

# ---- process 1: first into the cgroup, then a cgroup namespace that is rooted there, then the new root

become() {
    echo 0 >"$CGROUP/cgroup.procs" || exit 97
    exec unshare --cgroup "$0" pivot
}

pivot() {
    local r=$ROOT file
    mount -t proc -o nosuid,noexec,nodev proc "$r/proc"
    for file in sys sysrq-trigger irq bus; do # what would reach the machine itself
        [ -e "$r/proc/$file" ] && mount --bind "$r/proc/$file" "$r/proc/$file" \
            && mount -o remount,bind,ro,nosuid,noexec,nodev "$r/proc/$file"
    done
    [ -e "$r/proc/kmsg" ] && mount --bind "$r/dev/null" "$r/proc/kmsg"
    mount -t cgroup2 -o nosuid,noexec,nodev cgroup2 "$r/sys/fs/cgroup"
    hostname procd-test
    echo procd-test >"$r/etc/hostname"
    cd "$r" && mkdir -p run/oldroot && pivot_root . run/oldroot && cd / || exit 97
    exec /usr/bin/env -i PATH=$PATH container=procd-test bash -c 'umount -l /run/oldroot && rmdir /run/oldroot
        mount --make-rshared /
        exec /lib/systemd/systemd --system --unit=test.target --log-target=journal'
}

verb=${1:-}
shift
case $verb in
boot) boot "$@" ;;
in) enter "$@" ;;
prepare) prepare "$@" ;;
become) become ;;
pivot) pivot ;;
*) cannot "say boot or in" ;;
esac
