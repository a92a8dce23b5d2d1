/**
 * Consumes the attack over the database at argv[2] and kills itself, as with `kill -9`, at step argv[3]: each
 * effect has a step before it, between its writes, after them, and after the commit.
 */
import { openState } from '../../state/state.ts'
import { consumeAll, createAttack } from './attack.ts'

const [, , path = '', dieAt = '0'] = process.argv
let step = 0
const maybeDie = () => {
  step += 1
  if (step === Number(dieAt)) process.kill(process.pid, 'SIGKILL')
}

const real = openState(path)
const state: typeof real = {
  ...real,
  groupingKeys: {
    ...real.groupingKeys,
    leave(...parts) {
      maybeDie()
      real.groupingKeys.leave(...parts)
      maybeDie()
    },
  },
  consumer: {
    ...real.consumer,
    advance(...parts) {
      maybeDie()
      real.consumer.advance(...parts)
      maybeDie()
    },
  },
}
await consumeAll(state, createAttack(), { announce: maybeDie })
process.stdout.write('finished\n')
real.close()
