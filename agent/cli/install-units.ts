/**
 * The units of systemd that run the agent: what packages bring and `install` writes. Each line that hardens is
 * there, and each that usually would and is not says why (docs/adr/0011-packages-and-units.md).
 */

/** First line of units that `install` writes, by which packages and `uninstall` know them. */
export const INSTALLED_MARK = '# Written by `cordon-agent install`; `cordon-agent uninstall` removes it.'

export const AGENT_UNIT = 'cordon-agent.service'
export const ISOLATION_UNIT = 'cordon-agent-isolation.service'
/** The target that wants each unit, as its [Install] section says. */
export const WANTED_BY = {
  [AGENT_UNIT]: 'multi-user.target',
  [ISOLATION_UNIT]: 'sysinit.target',
} as const

export const AGENT_PROGRAM = '/usr/bin/cordon-agent'
const AGENT_CONFIG_FOLDER = '/etc/cordon-agent'
export const AGENT_CONFIG = `${AGENT_CONFIG_FOLDER}/agent.json`
export const AGENT_STATE_FOLDER = '/var/lib/cordon-agent'

const COMMAND = `${AGENT_PROGRAM} --config ${AGENT_CONFIG}`

/** Variables through which a process of another's making could be run in the agent's name. */
const UNSET = 'NODE_OPTIONS NODE_EXTRA_CA_CERTS LD_PRELOAD LD_LIBRARY_PATH LD_AUDIT CORDON_ADDON_FOLDER'

const agentUnit = `[Unit]
Description=Cordon agent: watches this host, detects, acts on signed commands
Documentation=man:cordon-agent(8)
After=network.target ${ISOLATION_UNIT}
# An agent that is not enrolled has nobody to report to: it is skipped, not failed.
ConditionPathExists=${AGENT_STATE_FOLDER}/identity.json
# Never given up: what the host is without its agent is worse than one start each second.
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart=${COMMAND} run
# What a killed agent left in the kernel goes; an isolation in force stays.
ExecStopPost=${COMMAND} clean-kernel
Restart=always
RestartSec=1s
TimeoutStartSec=90s
TimeoutStopSec=30s
WatchdogSec=60s
# The agent ends its scanner itself; what is left is killed.
KillMode=mixed

StateDirectory=cordon-agent
StateDirectoryMode=0700
UMask=0077
UnsetEnvironment=${UNSET}

# Bounds: a scanner of 512 MiB, the agent, and what the kernel keeps for its programs.
MemoryMax=1G
TasksMax=128
LimitNOFILE=65536
LimitCORE=0
CPUWeight=50
CPUQuota=150%
IOWeight=50
# The kernel takes others first; the scanner, in the same group, does not take the agent with it.
OOMScoreAdjust=-500
OOMPolicy=continue

# What it does: kernel programs and fanotify, audit where there are none, other processes, nftables, files of all users, its scanner's cage.
CapabilityBoundingSet=CAP_BPF CAP_PERFMON CAP_SYS_ADMIN CAP_SYS_RESOURCE
CapabilityBoundingSet=CAP_AUDIT_CONTROL CAP_AUDIT_READ
CapabilityBoundingSet=CAP_KILL CAP_SYS_PTRACE CAP_NET_ADMIN
CapabilityBoundingSet=CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_CHOWN CAP_FOWNER CAP_FSETID CAP_SETFCAP
CapabilityBoundingSet=CAP_SETUID CAP_SETGID
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
# The scanner leaves the network for an empty namespace; no other kind is made.
RestrictNamespaces=net
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service seccomp
SystemCallFilter=bpf perf_event_open fanotify_init fanotify_mark open_by_handle_at
SystemCallFilter=pidfd_open pidfd_send_signal pidfd_getfd
SystemCallErrorNumber=EPERM
KeyringMode=private

# Left out, because each gives the unit a mount namespace of its own. In one, fanotify would not hear of mounts
# that come later, paths would be told and quarantined as this unit sees them, and read-only views would keep
# malware from being taken out of /usr and /etc: ProtectSystem, ProtectHome, PrivateTmp, PrivateDevices,
# PrivateMounts, ProtectProc, ProcSubset, ProtectKernelTunables, ProtectKernelModules, ProtectKernelLogs,
# ProtectControlGroups, InaccessiblePaths. Capabilities and system calls for modules, the kernel's log, raw
# devices, clock, mounts and reboot are refused above instead.
# ProtectClock: its list of devices would attach a kernel program of systemd's; CAP_SYS_TIME is not there.
# ProtectHostname: a namespace in which a new host name is never seen.
# RestrictSUIDSGID: a file that comes back from quarantine has the mode that it had.
# MemoryDenyWriteExecute: V8 compiles at run time.
# PrivateNetwork, IPAddressDeny: the host's network is what is isolated, and where the controller is.
# PrivateUsers: in a user namespace there is no right over the host.

[Install]
WantedBy=${WANTED_BY[AGENT_UNIT]}
`

const isolationUnit = `[Unit]
Description=Cordon: an isolation in force is back before the network is
Documentation=man:cordon-agent(8)
DefaultDependencies=no
Wants=network-pre.target
# nftables.service begins with an empty ruleset: what it would take away is put back after it.
After=local-fs.target systemd-remount-fs.service nftables.service
Before=network-pre.target shutdown.target
Conflicts=shutdown.target
RequiresMountsFor=${AGENT_STATE_FOLDER} ${AGENT_CONFIG_FOLDER} /usr/bin
ConditionPathExists=${AGENT_STATE_FOLDER}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=${COMMAND} restore-isolation
TimeoutStartSec=60s
UMask=0077
UnsetEnvironment=${UNSET}
LimitCORE=0
MemoryMax=512M
TasksMax=64
CapabilityBoundingSet=CAP_NET_ADMIN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
ProtectHome=yes
ProtectHostname=yes
PrivateTmp=yes
ProtectSystem=full
ProtectControlGroups=yes

[Install]
WantedBy=${WANTED_BY[ISOLATION_UNIT]}
`

/** Unit texts by file name. */
export const AGENT_UNITS: Readonly<Record<keyof typeof WANTED_BY, string>> = {
  [AGENT_UNIT]: agentUnit,
  [ISOLATION_UNIT]: isolationUnit,
}
