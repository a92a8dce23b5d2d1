import { expect, test } from 'vitest'
import { QueryTooLong } from '../store/event-store.ts'
import { problemOf } from './problem.ts'

test('a query that takes too long is no error of the program: it says what to ask for instead', () => {
  expect(problemOf(new QueryTooLong())).toMatchObject({
    code: 'overloaded',
    message: 'the query took too long',
    hint: 'Ask for a shorter time or fewer events.',
  })
})

test('what nobody knows tells nothing of itself', () => {
  expect(JSON.stringify(problemOf(new Error('secret path /x')))).not.toContain('/x')
})
