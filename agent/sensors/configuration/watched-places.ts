/** Which files are configuration, and of what: the fixed places of a Linux system, and those in each home. */
import type { PERSISTENCE_KINDS } from '../../../shared/events/configuration-events.ts'
import type { ExactPath } from '../exact-path.ts'
import type { AccountFile } from './account-files.ts'
import { type UnitPlace, unitPlace } from './unit-changes.ts'

export type Topic =
  | { readonly kind: 'accounts'; readonly file: AccountFile }
  /** Null: of nobody in particular. */
  | { readonly kind: 'keys'; readonly user: string | null }
  | { readonly kind: 'task'; readonly task: 'cron' | 'at' }
  | { readonly kind: 'unit'; readonly place: UnitPlace }
  | { readonly kind: 'persistence'; readonly persistence: (typeof PERSISTENCE_KINDS)[number] }

/** Topics of whole folders: of units, the file's name says which. */
export type FolderTopic = Topic | { readonly kind: 'units' }

export interface WatchedFolder {
  readonly topic: FolderTopic
  /** Folders below it that count, too. */
  readonly depth: number
}

const cron: Topic = { kind: 'task', task: 'cron' }
const at: Topic = { kind: 'task', task: 'at' }
const units: FolderTopic = { kind: 'units' }
const persistence = (kind: (typeof PERSISTENCE_KINDS)[number]): Topic => ({
  kind: 'persistence',
  persistence: kind,
})
const shell = persistence('shell-profile')
const ssh = persistence('ssh-configuration')

export const WATCHED_FILES: readonly (readonly [Topic, readonly string[]])[] = [
  [{ kind: 'accounts', file: 'passwd' }, ['/etc/passwd']],
  [{ kind: 'accounts', file: 'shadow' }, ['/etc/shadow']],
  [{ kind: 'accounts', file: 'group' }, ['/etc/group']],
  [{ kind: 'accounts', file: 'gshadow' }, ['/etc/gshadow']],
  [cron, ['/etc/crontab', '/etc/anacrontab']],
  [
    shell,
    [
      ...['/etc/profile', '/etc/bash.bashrc', '/etc/bashrc', '/etc/environment', '/etc/csh.cshrc'],
      ...['/etc/csh.login', '/etc/zshrc', '/etc/zshenv', '/etc/zprofile', '/etc/zlogin'],
    ],
  ],
  [persistence('init-script'), ['/etc/rc.local', '/etc/rc.d/rc.local', '/etc/inittab']],
  [persistence('preload'), ['/etc/ld.so.preload', '/etc/ld.so.conf']],
  [persistence('pam'), ['/etc/pam.conf']],
  [persistence('module-configuration'), ['/etc/modules', '/etc/modprobe.conf']],
  [persistence('sysctl-configuration'), ['/etc/sysctl.conf']],
  [ssh, ['/etc/ssh/sshd_config', '/etc/ssh/ssh_config', '/etc/ssh/sshrc']],
  [persistence('sudoers'), ['/etc/sudoers', '/etc/doas.conf']],
]

export const WATCHED_FOLDERS: readonly (readonly [FolderTopic, number, readonly string[]])[] = [
  [cron, 0, ['/etc/cron.d', '/etc/cron.hourly', '/etc/cron.daily', '/etc/cron.weekly', '/etc/cron.monthly']],
  [cron, 1, ['/var/spool/cron']],
  [at, 0, ['/var/spool/cron/atjobs', '/var/spool/at']],
  [
    units,
    1,
    [
      ...['/etc/systemd/system', '/etc/systemd/user', '/run/systemd/system', '/run/systemd/user'],
      ...['/run/systemd/transient', '/run/systemd/system.control', '/etc/systemd/system.control'],
      ...['/usr/lib/systemd/system', '/usr/lib/systemd/user', '/lib/systemd/system', '/lib/systemd/user'],
      ...['/usr/local/lib/systemd/system', '/usr/local/lib/systemd/user'],
    ],
  ],
  [
    persistence('init-script'),
    0,
    [
      ...['/etc/init.d', '/etc/rc.d/init.d'],
      ...['0', '1', '2', '3', '4', '5', '6', 'S'].flatMap((level) => [
        `/etc/rc${level}.d`,
        `/etc/rc.d/rc${level}.d`,
      ]),
    ],
  ],
  [shell, 0, ['/etc/profile.d', '/etc/zsh', '/etc/environment.d', '/etc/fish', '/etc/fish/conf.d']],
  [persistence('preload'), 0, ['/etc/ld.so.conf.d']],
  [persistence('pam'), 0, ['/etc/pam.d', '/usr/lib/pam.d']],
  [persistence('pam'), 1, ['/etc/security']],
  [
    persistence('udev'),
    0,
    ['/etc/udev/rules.d', '/run/udev/rules.d', '/usr/lib/udev/rules.d', '/lib/udev/rules.d'],
  ],
  [
    persistence('module-configuration'),
    0,
    [
      ...['/etc/modules-load.d', '/run/modules-load.d', '/usr/lib/modules-load.d', '/lib/modules-load.d'],
      ...['/etc/modprobe.d', '/run/modprobe.d', '/usr/lib/modprobe.d', '/lib/modprobe.d'],
    ],
  ],
  [
    persistence('sysctl-configuration'),
    0,
    ['/etc/sysctl.d', '/run/sysctl.d', '/usr/lib/sysctl.d', '/lib/sysctl.d'],
  ],
  [ssh, 0, ['/etc/ssh/sshd_config.d', '/etc/ssh/ssh_config.d']],
  [persistence('sudoers'), 0, ['/etc/sudoers.d']],
  [persistence('desktop-autostart'), 0, ['/etc/xdg/autostart', '/usr/share/gnome/autostart']],
]

export const HOME_FILES: readonly (readonly [Topic, readonly string[]])[] = [
  [
    shell,
    [
      ...['.bashrc', '.profile', '.bash_profile', '.bash_login', '.bash_logout', '.bash_aliases'],
      ...['.zshrc', '.zshenv', '.zprofile', '.zlogin', '.zlogout', '.login', '.cshrc', '.tcshrc', '.kshrc'],
      '.config/fish/config.fish',
    ],
  ],
  [persistence('desktop-autostart'), ['.xprofile', '.xinitrc', '.xsession', '.xsessionrc']],
  [persistence('pam'), ['.pam_environment']],
  [ssh, ['.ssh/config', '.ssh/rc']],
]

export const HOME_FOLDERS: readonly (readonly [FolderTopic, number, readonly string[]])[] = [
  [units, 1, ['.config/systemd/user', '.config/systemd/user.control', '.local/share/systemd/user']],
  [persistence('desktop-autostart'), 0, ['.config/autostart']],
  [shell, 0, ['.config/fish/conf.d', '.config/environment.d']],
]

/** Files that package tools and editors put beside the one that they replace a moment later. */
const PASSING = /(?:\.dpkg-(?:new|tmp|old|dist)|\.rpm(?:new|save|orig)|\.sw[a-px]|~|;[0-9a-f]{8})$/

/** What a file is that lies in a watched folder; `below` is its path relative to that. Null: nothing. */
export function topicInFolder(topic: FolderTopic, below: ExactPath): Topic | null {
  if (PASSING.test(below)) return null
  switch (topic.kind) {
    case 'units': {
      const place = unitPlace(below)
      return place && { kind: 'unit', place }
    }
    case 'task':
      // What crontab(1) writes before it renames, and the counters and locks of at and cron.
      if (/(?:^|\/)(?:tmp\.|\.)/.test(below)) return null
      if (topic.task === 'cron')
        return below.startsWith('atspool/') || below.startsWith('lastrun/') ? null : topic
      return topic
    case 'persistence':
      return topic.persistence === 'desktop-autostart' && !below.endsWith('.desktop') ? null : topic
    default:
      return topic
  }
}
