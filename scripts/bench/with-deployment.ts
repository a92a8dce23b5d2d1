/** A deployment of its own for one measurement, with an operator signed in. */
import { join } from 'node:path'
import { controllerEnvironment, type Deployment, startDeployment } from '../setup/deployment.ts'
import { type Operator, signIn } from '../setup/operator.ts'
import type { BenchContext } from './report.ts'

export async function withDeployment<Value>(
  context: BenchContext,
  name: string,
  agentEnvironment: Record<string, string>,
  measure: (deployment: Deployment, operator: Operator) => Promise<Value>,
): Promise<Value> {
  const folder = join(context.folder, name)
  const deployment = await startDeployment({
    folder,
    say: context.say,
    operators: ['bench'],
    agentEnvironment,
  })
  try {
    const operator = await signIn({
      name: 'bench',
      home: join(deployment.folders.operators, 'bench'),
      apiUrl: deployment.apiUrl,
      controllerEnvironment: controllerEnvironment(deployment.folders, deployment.ports, {}),
    })
    return await measure(deployment, operator)
  } finally {
    await deployment.stop()
  }
}
