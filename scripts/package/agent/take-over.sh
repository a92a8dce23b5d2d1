# A host that has the agent by `cordon-agent install` hands it over: its units would win over the package's.
for unit in cordon-agent.service cordon-agent-isolation.service; do
  if head -n 1 "/etc/systemd/system/$unit" 2>/dev/null | grep -q '^# Written by `cordon-agent install`'; then
    rm -f "/etc/systemd/system/$unit" /etc/systemd/system/*.wants/"$unit"
  fi
done
