// Programs and settings that mine coins at the host's cost.

rule cordon_miner_settings : miner
{
    meta:
        id = "cordon-yara-miner-settings"
        name = "Settings of a coin miner"
        description = "A JSON file names mining pools, a wallet and a mining algorithm."
        severity = "high"
        technique = "T1496"
    strings:
        $pools = /"pools?"[ \t]{0,4}:/
        $stratum = /"stratum\+(tcp|ssl|tls):\/\//
        $donate = /"donate-level"[ \t]{0,4}:/
        $algorithm = /"(algo|coin)"[ \t]{0,4}:[ \t]{0,4}"(rx\/|cn\/|cn-|argon2\/|kawpow|monero|randomx)/
        $wallet = /"user"[ \t]{0,4}:[ \t]{0,4}"4[0-9AB][1-9A-HJ-NP-Za-km-z]{93}/
    condition:
        filesize < 128KB and $pools and 2 of ($stratum, $donate, $algorithm, $wallet)
}

rule cordon_miner_program : miner
{
    meta:
        id = "cordon-yara-miner-program"
        name = "Coin miner program"
        description = "A program for Linux that speaks a mining pool's protocol and knows mining algorithms."
        severity = "high"
        technique = "T1496"
    strings:
        $stratum = "stratum+tcp://"
        $method_1 = "mining.subscribe"
        $method_2 = "mining.authorize"
        $method_3 = "keepalived"
        $algorithm_1 = "randomx" nocase
        $algorithm_2 = "cryptonight" nocase
        $algorithm_3 = "cn/r"
        $donate = "donate-level"
    condition:
        uint32be(0) == 0x7F454C46 and filesize < 32MB and $stratum
        and any of ($method_*) and any of ($algorithm_*) and $donate
}
