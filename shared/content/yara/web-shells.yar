// Server pages that run what the visitor sends.

rule cordon_php_request_executed : webshell
{
    meta:
        id = "cordon-yara-php-request-executed"
        name = "PHP page runs what a request says"
        description = "A PHP page hands a request's own parameter to a function that runs code or commands."
        severity = "high"
        technique = "T1505.003"
    strings:
        $open = "<?"
        $call = /\b(eval|assert|system|passthru|shell_exec|popen|proc_open|pcntl_exec)[ \t]{0,4}\([ \t@]{0,4}(stripslashes|trim|base64_decode|urldecode)?[ \t]{0,4}\(?[ \t]{0,4}\$_(GET|POST|REQUEST|COOKIE|SERVER)[ \t]{0,4}\[/ nocase
    condition:
        filesize < 2MB and $open and $call and uint32be(0) != 0x7F454C46
}

rule cordon_php_layers_unpacked_and_run : webshell
{
    meta:
        id = "cordon-yara-php-layers-run"
        name = "PHP page unpacks itself and runs"
        description = "A PHP page decodes and inflates a hidden text and runs the result."
        severity = "high"
        technique = "T1027"
    strings:
        $open = "<?php" nocase
        $nested = /\b(eval|assert)[ \t]{0,4}\([ \t@]{0,4}(gzinflate|gzuncompress|str_rot13|strrev)[ \t]{0,4}\([ \t@]{0,4}(base64_decode|str_rot13|strrev|gzinflate)[ \t]{0,4}\(/ nocase
    condition:
        filesize < 2MB and $open and $nested and uint32be(0) != 0x7F454C46
}

rule cordon_jsp_request_executed : webshell
{
    meta:
        id = "cordon-yara-jsp-request-executed"
        name = "JSP page runs what a request says"
        description = "A Java server page starts a command that comes out of the request."
        severity = "high"
        technique = "T1505.003"
    strings:
        $page = "<%"
        $call = /(getRuntime\(\)[ \t]{0,4}\.exec|new[ \t]{1,4}ProcessBuilder)[ \t]{0,4}\([^;]{0,120}request[ \t]{0,4}\.getParameter[ \t]{0,4}\(/
    condition:
        filesize < 1MB and $page and $call
}
