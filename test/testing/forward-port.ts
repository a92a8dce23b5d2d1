/**
 * Hands its standard input and output, which qemu made one socket, to a port of this machine's loopback:
 * `node forward-port.ts PORT`. It ends with either end.
 */
import { connect } from 'node:net'
import { pipeline } from 'node:stream'

const port = connect(Number(process.argv[2]), '127.0.0.1')
// Whoever goes first takes the other along; what was lost is for those who speak through here to see.
const end = () => process.exit(0)
pipeline(process.stdin, port, (error) => {
  if (error) end()
})
pipeline(port, process.stdout, end)
