"""The examination of one model: every probe in its order, the window, how an answer comes and ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

from dragoman.backends.base import ModelInfo
from dragoman.gateway.doctor import stream_probes, text_probes, tool_probes, window_probes
from dragoman.gateway.doctor.asking import Asker
from dragoman.gateway.doctor.finding import Finding
from dragoman.gateway.doctor.http import Http
from dragoman.gateway.doctor.report import ModelReport
from dragoman.gateway.doctor.show import Show
from dragoman.gateway.doctor.subjects import Subject
from dragoman.gateway.doctor.treatment import UNUSABLE, Probe, Treatment
from dragoman.gateway.doctor.window_probes import Windows
from dragoman.gateway.doctor.words import Words

MODEL_NAME = "model name"
PROBES: tuple[tuple[Probe, str], ...] = (
    (text_probes.usage, "usage"),
    (text_probes.reasoning, "reasoning"),
    (text_probes.counting, "a count of the prompt"),
    (text_probes.late_system, "an answer after a late system message"),
    (tool_probes.tool_call, "a tool call"),
    (tool_probes.forced_tool, "a forced tool call"),
    (tool_probes.two_calls, "two tool calls at once"),
    (tool_probes.turns, "an answer to turns as agents send them"),
    (text_probes.schema, "an answer by a JSON schema"),
    (tool_probes.parameters, "an answer with the parameters of agents"),
)


@dataclass(frozen=True, slots=True)
class Around:
    """What is the same for every model of a server. `base` is the address of a chat server, None for other kinds."""

    show: Show
    words: Words
    listed: Sequence[ModelInfo]
    deep: bool
    base: str | None
    http: Http | None


class ModelExamination:
    def __init__(self, around: Around, subject: Subject, report: ModelReport, treatment: Treatment) -> None:
        self._around = around
        self._show = around.show
        self._subject = subject
        self._report = report
        self._treatment = treatment
        self.windows = Windows()

    async def run(self) -> None:
        """Ends early where nothing else can be found out."""
        try:
            await self._known_window()
            text = await self._text()
            self._add(text)
            if text.verdict == "FAIL" and not text.mended:
                return
            for probe, what in PROBES:
                self._add(await self._treatment.probed(probe, what))
            await self._window()
            await self._stream()
            self._show.waiting("an answer, to leave in the middle of it")
            self._add(await stream_probes.leaving(self._treatment.asker))
        except UNUSABLE as error:
            self._add(Finding("FAIL", "next probe", " ".join(str(error).split())))

    def _add(self, found: Finding) -> None:
        self._report.findings.append(found)
        self._show.finding(found)

    # --------------------------------------------------------------------------------------------------------- the name

    async def _text(self) -> Finding:
        """A name that the server does not know may be a slip for one that it lists."""
        names = [each.id for each in self._around.listed]
        if not names or self._subject.model in names:
            return await self._treatment.probed(text_probes.text, "a first answer")
        self._show.waiting("a first answer")
        first = await text_probes.text(self._treatment.asker)
        if first.verdict != "FAIL":
            return first
        if near := _nearest(self._subject.model, names):
            return await self._renamed(first, near)
        return replace(first, advice=f"the server lists {', '.join(names[:5])}")

    async def _renamed(self, first: Finding, near: str) -> Finding:
        changes = {self._subject.name_key: near}
        trial = self._treatment.trial.changed(changes)
        asker = Asker(await trial.open(), near, self._around.words)
        second = await text_probes.text(asker)
        if second.verdict == "FAIL":
            await trial.close()
            return replace(first, advice=f"the server lists {near}, but that fails too: {second.result}")
        await self._treatment.adopt(trial, asker)
        return Finding("FAIL", MODEL_NAME, first.result, changes=changes, tried=f"{near}: {second.result}")

    # ------------------------------------------------------------------------------------------------------- the window

    async def _known_window(self) -> None:
        treatment, subject, listed = self._treatment, self._subject, self._around.listed
        if treatment.trial.window != subject.window:
            trial = treatment.trial.with_window(subject.window)
            await treatment.adopt(trial, treatment.asker.on(await trial.open()))
        configured = subject.window or treatment.trial.given.window
        named = [each for each in listed if each.id == subject.model]
        found = listed if len(listed) == 1 else named  # a server with one model answers to every name
        self.windows.configured = configured is not None
        self.windows.known = configured or (found[0].window if found else None)

    async def _window(self) -> None:
        windows = self.windows
        about = window_probes.known_window(windows)
        further: list[Finding] = []
        if windows.known is None or windows.known >= window_probes.ASKED:
            self._show.waiting("an answer to a prompt of 5,000 tokens")
            further.append(await window_probes.long_prompt(self._treatment.asker, windows))
        if self._around.deep and all(each.verdict != "FAIL" for each in further):
            self._show.waiting("an answer to a prompt as long as the window")
            further.append(await window_probes.deep(self._treatment.asker, windows))
        if windows.true is not None and windows.true != windows.known:
            about = await self._corrected(about, windows.true)
        for each in (about, *further):
            self._add(each)

    async def _corrected(self, about: Finding, true: int) -> Finding:
        """With the true window the gateway reports an overflow by itself, in each protocol's own words."""
        treatment, changes = self._treatment, {self._subject.window_key: true}
        trial = treatment.trial.changed(changes)
        if self._subject.window is not None:
            trial = trial.with_window(true)
        await treatment.adopt(trial, treatment.asker.on(await trial.open()))
        tried = "overflows are then found before the server is asked"
        return replace(about, verdict="weak", advice="", changes=changes, tried=tried)

    # ------------------------------------------------------------------------------------------------------- the stream

    async def _stream(self) -> None:
        trial, http, base = self._treatment.trial, self._around.http, self._around.base
        if trial.settings is None or http is None or base is None:
            return
        self._show.waiting("an answer in pieces")
        self._add(await stream_probes.stream(self._treatment.asker, http, base, trial.settings, trial.model))


def _nearest(name: str, names: Sequence[str]) -> str | None:
    if len(names) == 1:
        return names[0]
    by_folded = {each.lower(): each for each in names}
    found = get_close_matches(name.lower(), by_folded, n=1, cutoff=0.6)
    parts = [each for each in names if name.lower() in each.lower()]
    return by_folded[found[0]] if found else (parts[0] if len(parts) == 1 else None)
