// Programs for Linux (ELF) that are built as no compiler builds them, or that hook the system. The headers are
// read by hand (elf(5), little endian): the elf module parses whole files and makes all scans four times slower.

rule cordon_elf_packed_upx : packed
{
    meta:
        id = "cordon-yara-elf-packed-upx"
        name = "Program packed with UPX"
        description = "The program unpacks itself when run. Rare among a system's own programs."
        severity = "low"
        technique = "T1027.002"
    strings:
        $mark = "UPX!"
    condition:
        uint32be(0) == 0x7F454C46 and $mark in (0..1024)
}

rule cordon_elf_tiny_without_sections : stager
{
    meta:
        id = "cordon-yara-elf-tiny-no-sections"
        name = "Tiny program without sections"
        description = "A program of a few hundred bytes whose code may be written while it runs, as stagers are."
        severity = "high"
        technique = "T1620"
    condition:
        uint32be(0) == 0x7F454C46 and uint8(5) == 1 and filesize < 4KB
        and (
            // 64 bits: no sections, and a first segment that is loaded, readable, writable and executable.
            (
                uint8(4) == 2 and uint16(0x3C) == 0 and uint16(0x38) > 0 and uint16(0x38) <= 2
                and uint32(uint32(0x20)) == 1 and uint32(uint32(0x20) + 4) == 7
            )
            // The same with 32 bits.
            or (
                uint8(4) == 1 and uint16(0x30) == 0 and uint16(0x2C) > 0 and uint16(0x2C) <= 2
                and uint32(uint32(0x1C)) == 1 and uint32(uint32(0x1C) + 24) == 7
            )
        )
}

rule cordon_elf_starts_in_writable_code : odd
{
    meta:
        id = "cordon-yara-elf-writable-code"
        name = "Program starts in writable code"
        description = "The program's first instruction lies in memory that may be written and run."
        severity = "medium"
        technique = "T1027.002"
    condition:
        uint32be(0) == 0x7F454C46 and uint8(5) == 1 and uint8(4) == 2
        and filesize >= 4KB and filesize < 32MB and uint16(0x38) > 0 and uint16(0x38) <= 32
        // Within the first 4 GiB of addresses, or at an offset of a position independent program.
        and uint32(0x1C) == 0
        and for any index in (0..uint16(0x38) - 1) : (
            uint32(uint32(0x20) + index * 56) == 1
            and (uint32(uint32(0x20) + index * 56 + 4) & 3) == 3
            and uint32(0x18) >= uint32(uint32(0x20) + index * 56 + 16)
            and uint32(0x18) < uint32(uint32(0x20) + index * 56 + 16) + uint32(uint32(0x20) + index * 56 + 40)
        )
}

rule cordon_elf_preload_rootkit : rootkit
{
    meta:
        id = "cordon-yara-elf-preload-rootkit"
        name = "Library that hides files and processes"
        description = "A shared library replaces directory and login functions and knows the loader's preload file."
        severity = "critical"
        technique = "T1574.006"
    strings:
        $preload = "/etc/ld.so.preload"
        $next = "dlsym"
        $hook_1 = "readdir64"
        $hook_2 = "__xstat"
        $hook_3 = "pam_authenticate"
        $hook_4 = "accept"
        $hidden_1 = "/proc/net/tcp"
        $hidden_2 = "/proc/self/fd/%d"
        $hidden_3 = "/proc/%d/cmdline"
        // A program, not a library, names its loader.
        $loader = /\/lib(32|64)?\/ld-(linux|musl)/
    condition:
        uint32be(0) == 0x7F454C46 and uint16(0x10) == 3 and filesize < 4MB
        and $preload and $next and 2 of ($hook_*) and any of ($hidden_*) and not $loader
}
