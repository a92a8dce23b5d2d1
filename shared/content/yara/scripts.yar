// What attackers put into scripts and one-liners on Linux.

rule cordon_script_reverse_shell : shell
{
    meta:
        id = "cordon-yara-script-reverse-shell"
        name = "Script opens a reverse shell"
        description = "A script connects a shell to a remote host."
        severity = "high"
        technique = "T1059.004"
    strings:
        $device = /\b(ba)?sh[ \t]{1,4}-i[ \t]{0,4}(>&|&>|0>|>)[ \t]{0,4}\/dev\/(tcp|udp)\/[0-9A-Za-z_.:$\{\}-]{1,64}\/[0-9$\{A-Za-z_]/
        $exchange = /exec[ \t]{1,4}[0-9]{1,3}<>[ \t]{0,4}\/dev\/(tcp|udp)\/[0-9A-Za-z_.:$\{\}-]{1,64}\/[0-9]{1,5}[^\n]{0,20}\n?[^\n]{0,80}(sh|while read)/
        $fifo = /mkfifo[ \t]{1,4}[^;|&\n]{1,80}[;&|]{1,2}[^\n]{0,120}\|[ \t]{0,4}(\/bin\/)?(ba)?sh[ \t]{1,4}-i[^\n]{0,60}\|[ \t]{0,4}(nc|ncat|netcat|openssl|telnet)\b/
        $python = /socket\.socket\([^\n]{0,160}\.connect\([^\n]{0,160}os\.dup2\([^\n]{0,200}(subprocess|pty\.spawn)/
        $perl = /use Socket;[^\n]{0,200}connect\([^\n]{0,200}open\(STDIN,[ \t]{0,4}"?>&[^\n]{0,160}exec[ \t(]{0,4}["'{]/
        $netcat = /\b(nc|ncat|netcat)[ \t]{1,4}(-[a-z]{1,6}[ \t]{1,4}){0,3}-[a-z]{0,4}[ec][ \t]{1,4}(\/usr)?\/bin\/(ba)?sh\b/
    condition:
        filesize < 1MB and uint32be(0) != 0x7F454C46 and any of them
}

rule cordon_script_decoded_into_shell : shell
{
    meta:
        id = "cordon-yara-script-decoded-into-shell"
        name = "Script decodes a text into a shell"
        description = "A script decodes a long base64 text and pipes it straight into an interpreter."
        severity = "medium"
        technique = "T1140"
    strings:
        $pipe = /echo[ \t]{1,4}["']?[A-Za-z0-9+\/]{60,4000}={0,2}["']?[ \t]{0,4}\|[ \t]{0,4}base64[ \t]{1,4}(-d|-D|--decode)[ \t]{0,4}\|[ \t]{0,4}(sudo[ \t]{1,4})?(\/bin\/|\/usr\/bin\/env[ \t]{1,4})?(ba|z|da)?(sh|python3?|perl)\b/
    condition:
        filesize < 1MB and uint32be(0) != 0x7F454C46 and $pipe
}

rule cordon_script_cron_download : persistence
{
    meta:
        id = "cordon-yara-script-cron-download"
        name = "Scheduled download into a shell"
        description = "A cron entry fetches a script and runs it without looking at it."
        severity = "high"
        technique = "T1053.003"
    strings:
        $entry = /(\*|[0-9*\/,-]{1,8})([ \t]{1,4}[0-9*\/,-]{1,8}){4}[ \t]{1,4}(root[ \t]{1,4})?[^\n#]{0,80}(curl|wget)[ \t][^\n|;]{1,200}\|[ \t]{0,4}(\/bin\/)?(ba)?sh\b/
    condition:
        filesize < 1MB and uint32be(0) != 0x7F454C46 and $entry
}

rule cordon_script_traces_removed : evasion
{
    meta:
        id = "cordon-yara-script-traces-removed"
        name = "Script removes traces"
        description = "A script stops the shell's history and empties the system's logs."
        severity = "medium"
        technique = "T1070.002"
    strings:
        $history_1 = /unset[ \t]{1,4}HISTFILE\b/
        $history_2 = /history[ \t]{1,4}-c\b/
        $history_3 = /HISTFILE=\/dev\/null/
        $log_1 = /rm[ \t]{1,4}-[rf]{1,2}[ \t]{1,4}\/var\/log\/(wtmp|btmp|lastlog|auth\.log|secure|syslog|messages|audit|\*)/
        $log_2 = /(>|cat[ \t]{1,4}\/dev\/null[ \t]{0,4}>)[ \t]{0,4}\/var\/log\/(wtmp|btmp|lastlog|auth\.log|secure|syslog|messages)/
        $log_3 = /shred[ \t][^\n]{0,40}\/var\/log\//
    condition:
        filesize < 512KB and uint32be(0) != 0x7F454C46 and any of ($history_*) and any of ($log_*)
}

rule cordon_script_rivals_killed : miner
{
    meta:
        id = "cordon-yara-script-rivals-killed"
        name = "Script clears a host for a miner"
        description = "A script ends the known miners of others, as installers of miners do first."
        severity = "high"
        technique = "T1496"
    strings:
        $rival = /\b(pkill|killall|grep)[ \t][^\n]{0,60}(kdevtmpfsi|kinsing|xmrig|watchbog|sysupdate|networkservice|minerd|cryptonight)/
    condition:
        filesize < 512KB and uint32be(0) != 0x7F454C46 and #rival >= 3
}

rule cordon_ransom_note : impact
{
    meta:
        id = "cordon-yara-ransom-note"
        name = "Ransom note"
        description = "A short text says that files were encrypted and how to pay."
        severity = "high"
        technique = "T1486"
    strings:
        $encrypted = /\b(your|all)[ \t]{1,4}(important[ \t]{1,4})?(files|documents|data|network)[^\n.]{0,60}(are|were|have been|has been)[ \t]{1,4}(fully[ \t]{1,4})?encrypted/ nocase
        $price_1 = /\b(bitcoin|btc|monero|xmr)\b/ nocase
        $contact_1 = /[a-z2-7]{56}\.onion/
        $contact_2 = /(decryption key|private key|decryptor|decrypt your files|recover your files)/ nocase
    condition:
        filesize < 32KB and $encrypted and $price_1 and any of ($contact_*)
}
