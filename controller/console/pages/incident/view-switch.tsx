/** On a narrow window tree and timeline share one place; this says which of them stands there. */
import { useAddress } from '../../frame/address.ts'

export function ViewSwitch() {
  const address = useAddress()
  const isTimeline = address.get('view') === 'timeline'
  return (
    <fieldset className="seg viewswitch">
      <legend className="vh">View</legend>
      <button
        type="button"
        className={isTimeline ? '' : 'on'}
        aria-pressed={!isTimeline}
        onClick={() => address.set({ view: '' })}
      >
        Tree
      </button>
      <button
        type="button"
        className={isTimeline ? 'on' : ''}
        aria-pressed={isTimeline}
        onClick={() => address.set({ view: 'timeline' })}
      >
        Timeline
      </button>
    </fieldset>
  )
}
