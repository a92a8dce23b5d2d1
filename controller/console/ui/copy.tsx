/** Copying, and commands that are there to be copied. */
import { Check, Copy } from 'lucide-react'
import { useEffect, useState } from 'react'

const SHOWN_MS = 1_500

export function CopyButton({ text, label }: { readonly text: string; readonly label: string }) {
  const [copied, setCopied] = useState(false)
  useEffect(() => {
    if (!copied) return
    const timer = setTimeout(() => setCopied(false), SHOWN_MS)
    return () => clearTimeout(timer)
  }, [copied])
  const copy = async () => {
    await copyText(text)
    setCopied(true)
  }
  return (
    <button type="button" className="ic cp" aria-label={copied ? 'Copied' : label} onClick={copy}>
      {copied ? <Check size={12} className="c-ok" /> : <Copy size={12} />}
    </button>
  )
}

/** Browsers give the clipboard to pages from a safe place alone; elsewhere the selection does. */
async function copyText(text: string): Promise<void> {
  if (navigator.clipboard) return navigator.clipboard.writeText(text)
  const area = document.createElement('textarea')
  area.value = text
  document.body.append(area)
  area.select()
  document.execCommand('copy')
  area.remove()
}

export function CommandLine({ command }: { readonly command: string }) {
  return (
    <div className="cli">
      <code title={command}>{command}</code>
      <CopyButton text={command} label={`Copy ${command}`} />
    </div>
  )
}
