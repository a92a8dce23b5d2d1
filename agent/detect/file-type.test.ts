import { readFileSync } from 'node:fs'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { expect, test } from 'vitest'
import { mimeTypeOf } from './file-type.ts'

const latin1 = (text: string) => Buffer.from(text, 'latin1')
const padded = (text: string, length: number) => Buffer.concat([latin1(text), Buffer.alloc(length)])

/** An ELF header, with one program header of the given type. */
function elf(type: number, programHeaderType: number, isBig = false, is64 = true): Buffer {
  const bytes = Buffer.alloc(128)
  bytes.write('\x7fELF', 'latin1')
  bytes[4] = is64 ? 2 : 1
  bytes[5] = isBig ? 2 : 1
  const sixteen = (value: number, offset: number) =>
    isBig ? bytes.writeUInt16BE(value, offset) : bytes.writeUInt16LE(value, offset)
  const thirtyTwo = (value: number, offset: number) =>
    isBig ? bytes.writeUInt32BE(value, offset) : bytes.writeUInt32LE(value, offset)
  sixteen(type, 16)
  thirtyTwo(64, is64 ? (isBig ? 36 : 32) : 28)
  sixteen(32, is64 ? 54 : 42)
  sixteen(1, is64 ? 56 : 44)
  thirtyTwo(programHeaderType, 64)
  // Where a dynamic section would be, when the header is of one: flags that say it is a program.
  const wordBytes = is64 ? 8 : 4
  const low = is64 && isBig ? 4 : 0
  thirtyTwo(96, 64 + wordBytes + low)
  thirtyTwo(0x6ffffffb, 96 + low)
  thirtyTwo(0x08000001, 96 + wordBytes + low)
  return bytes
}

function tar(): Buffer {
  const bytes = Buffer.alloc(512)
  bytes.write('name.txt')
  bytes.write('ustar', 257)
  return bytes
}

function portableExecutable(headerOffset: number): Buffer {
  const bytes = Buffer.alloc(256)
  bytes.write('MZ')
  bytes.writeUInt32LE(headerOffset, 60)
  bytes.write('PE\0\0', 128)
  return bytes
}

test.each([
  ['application/x-executable', elf(2, 1)],
  ['application/x-sharedlib', elf(3, 1)],
  ['application/x-pie-executable', elf(3, 3)],
  ['application/x-pie-executable', elf(3, 3, true)],
  ['application/x-pie-executable', elf(3, 3, true, false)],
  ['application/x-pie-executable', elf(3, 3, false, false)],
  ['application/x-pie-executable', elf(3, 2)],
  ['application/x-pie-executable', elf(3, 2, true)],
  ['application/x-pie-executable', elf(3, 2, false, false)],
  ['application/x-object', elf(1, 0)],
  ['application/x-coredump', elf(4, 4)],
  ['application/gzip', gzipSync('x')],
  ['application/zstd', zstdCompressSync('x')],
  ['application/x-xz', latin1('\xfd7zXZ\0\0')],
  ['application/x-bzip2', latin1('BZh91AY&SY')],
  ['application/zip', padded('PK\x03\x04', 40)],
  ['application/java-archive', padded(`PK\x03\x04${'\0'.repeat(26)}META-INF/`, 40)],
  ['application/x-7z-compressed', latin1('7z\xbc\xaf\x27\x1c\0')],
  ['application/x-tar', tar()],
  ['application/pdf', latin1('%PDF-1.7\n')],
  ['image/png', latin1('\x89PNG\r\n\x1a\n')],
  ['image/jpeg', latin1('\xff\xd8\xff\xe0')],
  ['image/gif', latin1('GIF89a')],
  ['image/webp', latin1('RIFF\0\0\0\0WEBPVP8 ')],
  ['application/vnd.sqlite3', latin1('SQLite format 3\0')],
  ['application/vnd.microsoft.portable-executable', portableExecutable(128)],
  ['application/x-dosexec', portableExecutable(4)],
  ['application/x-mach-binary', latin1('\xcf\xfa\xed\xfe')],
  ['application/x-mach-binary', latin1('\xca\xfe\xba\xbe\0\0\0\x02')],
  ['application/x-java-applet', latin1('\xca\xfe\xba\xbe\0\0\0\x41')],
  ['application/x-bytecode.python', padded('\xa7\x0d\r\n', 12)],
  ['application/wasm', latin1('\0asm\x01\0\0\0')],
  ['application/vnd.debian.binary-package', latin1('!<arch>\ndebian-binary   ')],
  ['application/x-archive', latin1('!<arch>\n/  ')],
  ['application/x-rpm', latin1('\xed\xab\xee\xdb\x03')],
  ['text/xml', latin1('<?xml version="1.0"?><a/>')],
  ['text/html', latin1('\n<!DOCTYPE HTML><title>x</title>')],
  ['application/json', latin1('{"name": 1}')],
  ['application/json', latin1('[1, 2]')],
  ['application/json', latin1('[]\n')],
  ['application/x-pem-file', latin1('-----BEGIN CERTIFICATE-----\n')],
  ['text/x-php', latin1('<?php echo 1;')],
  ['text/plain', latin1('[network]\nname = 1\n')],
  ['text/plain', latin1('[2026-11-24] started\n')],
  ['text/plain', latin1('{ not JSON }')],
  ['text/plain', Buffer.from('Grüße, 世界\n')],
  ['text/plain', latin1('\xff\xfea\0b\0')],
  ['inode/x-empty', Buffer.alloc(0)],
])('%s is told by its first bytes', (type, content) => {
  expect(mimeTypeOf(content)).toBe(type)
})

test.each([
  ['text/x-shellscript', '#!/bin/sh\nexit 0\n'],
  ['text/x-shellscript', '#! /usr/bin/env -S FOO=1 bash -e\n'],
  ['text/x-script.python', '#!/usr/bin/python3.11\n'],
  ['text/javascript', '#!/usr/bin/env node'],
  ['text/x-script', '#!/opt/own/interpreter -x\n'],
  ['text/x-script', '#!constructor\n'],
  ['text/x-script', '#!/usr/bin/env\n'],
  ['text/x-script', '#!'],
])('%s is told by %j', (type, content) => {
  expect(mimeTypeOf(Buffer.from(content))).toBe(type)
})

test('what runs this test is a program, and its source a text', () => {
  expect(mimeTypeOf(readFileSync(process.execPath))).toMatch(/^application\/x-(pie-)?executable$/)
  expect(mimeTypeOf(readFileSync(import.meta.filename))).toBe('text/plain')
})

test('a text whose last character is cut where it is looked at is a text', () => {
  for (let shift = 0; shift < 4; shift += 1) {
    expect(mimeTypeOf(Buffer.from(`${'a'.repeat(shift)}${'😀'.repeat(2_000)}`))).toBe('text/plain')
  }
  const stray = Buffer.concat([Buffer.alloc(4_095, 'a'), Buffer.from([0x80, 0x41])])
  expect(mimeTypeOf(stray)).toBe('application/octet-stream')
})

test.each([
  ['a cut ELF header', latin1('\x7fELF\x02\x01')],
  ['an ELF type that is none', elf(9, 0)],
  ['two letters of DOS', latin1('MZ')],
  ['control characters', latin1('text\x01')],
  ['bytes that are not UTF-8', latin1('caf\xe9')],
  ['a compressed file of which one byte is there', latin1('\x1f')],
])('%s is not taken for more than bytes', (name, content) => {
  expect(mimeTypeOf(content)).toBe(name === 'two letters of DOS' ? 'text/plain' : 'application/octet-stream')
})

test('headers that point anywhere, and every cut of them, have a type', () => {
  const hostile = [
    elf(3, 3),
    elf(3, 2),
    elf(3, 3, true),
    elf(3, 3, false, false),
    portableExecutable(0xffffffff),
    tar(),
  ]
  for (const bytes of hostile) {
    for (let offset = 16; offset < 64; offset += 1) {
      const changed = Buffer.from(bytes)
      changed.fill(0xff, offset, offset + 8)
      expect(mimeTypeOf(changed)).toMatch(/^[a-z]+\/[a-z0-9.+-]+$/)
    }
    for (let length = 0; length < bytes.length; length += 1) {
      expect(mimeTypeOf(bytes.subarray(0, length))).toMatch(/^[a-z]+\/[a-z0-9.+-]+$/)
    }
  }
})

test.each([' ', '[', '{', '"', '{"', '[1', '<', '#!', '#!/usr/bin/env ', '\\', '-1'])(
  'a content of %j again and again has a type',
  (piece) => {
    expect(mimeTypeOf(Buffer.from(piece.repeat(100_000)))).toMatch(/^text\/|^application\/json$/)
  },
)
