/** A dialog that takes the focus and gives it back. Without Radix's overlay, which writes styles into the page. */
import { Dialog as Radix } from 'radix-ui'
import type { ReactNode } from 'react'

export function Dialog({
  open,
  close,
  title,
  description,
  children,
  className = '',
}: {
  readonly open: boolean
  readonly close: () => void
  readonly title: string
  readonly description: string
  readonly children: ReactNode
  readonly className?: string
}) {
  return (
    <Radix.Root open={open} onOpenChange={(isOpen) => (isOpen ? undefined : close())}>
      <Radix.Portal>
        <div className="ovl" />
        <Radix.Content className={`dlg ${className}`}>
          <div className="dt">
            <Radix.Title>{title}</Radix.Title>
            <Radix.Description>{description}</Radix.Description>
          </div>
          {children}
        </Radix.Content>
      </Radix.Portal>
    </Radix.Root>
  )
}
