#!/usr/bin/env bash
# A real Slurm on this machine, without systemd: one controller, one node of four CPUs and two GPUs (which are only
# counted), two partitions.
#
#   cluster.sh start    needs root and the packages slurm-wlm and munge (Debian)
#   cluster.sh stop
#
# A job of the partition `urgent` pushes one of `main` off the node: it gets SIGTERM, and is queued again.
# /etc/slurm/slurm.conf and gres.conf are written: this is for test machines and containers, not for a node of a cluster.
set -euo pipefail

start() {
    local name
    name=$(hostname -s)
    mkdir -p /run/munge /var/spool/slurmctld /var/spool/slurmd /var/log/slurm /etc/slurm
    chown munge: /run/munge
    chown slurm: /var/spool/slurmctld
    cat >/etc/slurm/slurm.conf <<X
ClusterName=rfbench
SlurmctldHost=$name(127.0.0.1)
AuthType=auth/munge
AuthInfo=cred_expire=5
SlurmUser=slurm
SlurmdUser=root
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile=/var/log/slurm/slurmctld.log
SlurmdLogFile=/var/log/slurm/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_min_interval=200000,batch_sched_delay=0
MpiDefault=none
ReturnToService=2
NodeName=$name NodeAddr=127.0.0.1 CPUs=4 RealMemory=1000 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes=$name Default=YES MaxTime=INFINITE State=UP PriorityTier=1 OverSubscribe=NO
PartitionName=urgent Nodes=$name MaxTime=INFINITE State=UP PriorityTier=10 OverSubscribe=NO
X
    printf "Name=gpu File=/dev/%s\n" null zero >/etc/slurm/gres.conf
    runuser -u munge -- /usr/sbin/munged
    /usr/sbin/slurmctld -c
    /usr/sbin/slurmd -c
    for _ in $(seq 60); do
        sinfo -h -p main -o %T 2>/dev/null | grep -q idle && return
        sleep 0.5
    done
    echo "the node did not come up; see /var/log/slurm" >&2
    return 1
}

stop() {
    for name in slurmctld slurmd munge/munged; do
        if [ -f "/run/$name.pid" ]; then
            kill "$(cat "/run/$name.pid")" 2>/dev/null || true
            rm -f "/run/$name.pid"
        fi
    done
}

case "${1:-}" in
start) start ;;
stop) stop ;;
*)
    echo "usage: cluster.sh start|stop" >&2
    exit 2
    ;;
esac
