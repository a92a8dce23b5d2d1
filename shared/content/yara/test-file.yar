// The test file that every antivirus product finds and that does nothing, as eicar.org describes it.

rule cordon_eicar_test_file : test
{
    meta:
        id = "cordon-yara-eicar"
        name = "EICAR test file"
        description = "The harmless file that tests whether detection works."
        severity = "medium"
        technique = "T1105"
    strings:
        // The 68 bytes in hex, so that this file is not itself what it looks for.
        $text = {
            58 35 4F 21 50 25 40 41 50 5B 34 5C 50 5A 58 35 34 28 50 5E 29 37 43 43 29 37 7D 24
            45 49 43 41 52 2D 53 54 41 4E 44 41 52 44 2D 41 4E 54 49 56 49 52 55 53 2D
            54 45 53 54 2D 46 49 4C 45 21 24 48 2B 48 2A
        }
    condition:
        // White space may follow, 128 bytes in all.
        $text at 0 and filesize <= 128
}
