/** The shipped indicators, compiled once in each thread that looks at events. */
import { compileIndicators, type IndicatorMatcher } from '../../shared/ioc/matcher.ts'
import { readContent, shippedContentFolder } from '../../shared/node/content.ts'

/** Content that changes while the controller runs comes later. */
export function compileFleetIndicators(
  nowMs: number,
  onProblem: (problem: string) => void,
): IndicatorMatcher {
  const content = readContent([shippedContentFolder()])
  for (const problem of content.problems) onProblem(problem)
  return compileIndicators(content.indicators, nowMs)
}
