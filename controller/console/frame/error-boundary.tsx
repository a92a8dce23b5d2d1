/** Catches what a page throws while it is drawn, and says so instead of leaving an empty window. */
import { Component, type ReactNode } from 'react'

interface State {
  readonly error: Error | null
}

export class ErrorBoundary extends Component<{ readonly children: ReactNode }, State> {
  override state: State = { error: null }

  static getDerivedStateFromError(error: Error): State {
    return { error }
  }

  override render(): ReactNode {
    const { error } = this.state
    if (error === null) return this.props.children
    return (
      <div className="empty failed" role="alert">
        <b>This page could not be drawn</b>
        <p>{error.message}</p>
        <p>Everything else goes on. The program cordon shows the same facts.</p>
        <button type="button" className="btn" onClick={() => this.setState({ error: null })}>
          Try again
        </button>
      </div>
    )
  }
}
