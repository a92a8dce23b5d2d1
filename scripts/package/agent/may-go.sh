# Nobody could release an isolated host that has lost its agent. A program that cannot answer holds nothing up.
status=0
cordon-agent --config /etc/cordon-agent/agent.json uninstall --check || status=$?
if [ "$status" -eq 3 ]; then
  exit 1
fi
