"""The examination of every backend: first the address and the kind of the server, then each of its models.

The configuration itself is not changed: what helps is tried beside it and stands in the report.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

from dragoman.gateway.config import Config
from dragoman.gateway.doctor.address import locate
from dragoman.gateway.doctor.asking import Asker
from dragoman.gateway.doctor.clients import judged
from dragoman.gateway.doctor.extras import missing
from dragoman.gateway.doctor.finding import Finding
from dragoman.gateway.doctor.http import Http
from dragoman.gateway.doctor.model_examination import Around, ModelExamination
from dragoman.gateway.doctor.recognise import Kind, recognise
from dragoman.gateway.doctor.report import ModelReport, Report, ServerReport
from dragoman.gateway.doctor.show import Show
from dragoman.gateway.doctor.subjects import Subject, skipped, subjects
from dragoman.gateway.doctor.treatment import UNUSABLE, Treatment
from dragoman.gateway.doctor.trial import Trial
from dragoman.gateway.doctor.words import Words
from dragoman.gateway.factory import mask_url, tls_context
from dragoman.gateway.keys.secrets import Secrets

HEALTH, SERVER, START = "health", "server", "start"


async def examine(
    config: Config, secrets: Secrets, words: Words, show: Show, asked: str | None = None, deep: bool = False
) -> Report:
    """`asked` is a model's name that the person asked for; `deep` tries the window out."""
    report = Report(list(missing(config)))
    for found in report.gateway:
        show.finding(found)
    for place, given in enumerate(config.named_backends):
        if skipped(config, place, asked):
            continue
        server = ServerReport(str(given.name), mask_url(given.url), place)
        report.servers.append(server)
        show.server(server)
        await _Server(Trial(config, place, secrets), server, words, show, asked, deep).examine()
    return report


class _Server:
    """`_trial` is the configuration with all that has helped so far."""

    def __init__(
        self, trial: Trial, report: ServerReport, words: Words, show: Show, asked: str | None, deep: bool
    ) -> None:
        self._trial = trial
        self._report = report
        self._words = words
        self._show = show
        self._asked = asked
        self._deep = deep

    async def examine(self) -> None:
        async with AsyncExitStack() as stack:
            http, base = None, None
            if self._trial.chat:
                given = self._trial.given
                tls = tls_context(given.tls, str(given.name)) if given.tls else None
                http = await stack.enter_async_context(Http(self._trial.api_key, tls))
                if (base := await self._locate(http)) is None:
                    return
            try:
                self._show.waiting("the backend to start")
                await self._trial.open()
                await self._examine_models(http, base)
            except UNUSABLE as error:
                self._found(Finding("FAIL", START, " ".join(str(error).split())))
            finally:
                await self._trial.close()
                self._report.changes = self._trial.changes

    def _found(self, found: Finding) -> None:
        self._report.findings.append(found)
        self._show.finding(found)

    # ------------------------------------------------------------------------------------------------------- the server

    async def _locate(self, http: Http) -> str | None:
        """The server's address; the trial then has it, and the preset of the server's kind."""
        trial = self._trial
        self._show.waiting("an answer at the address")
        located = await locate(http, trial.given, trial.key("url"), bool(trial.api_key))
        self._found(located.finding)
        if located.base is not None:
            self._trial = trial.changed(located.finding.changes)
            self._show.waiting("what kind of server it is")
            self._recognised(await recognise(http, located.base, located.listing))
        return located.base

    def _recognised(self, kind: Kind | None) -> None:
        self._report.kind = str(kind or "")
        preset = self._trial.preset
        if kind is None or kind.preset is None or kind.preset == preset:
            used = f"preset {preset}" if preset else "no preset, so the settings of `generic`"
            self._found(Finding("ok", SERVER, f"{kind or 'of no kind that is known'}; {used}"))
            return
        changes = {self._trial.key("preset"): kind.preset}
        result = f"{kind}; {f'the preset is {preset}' if preset else 'no preset is set'}"
        self._trial = self._trial.changed(changes)
        self._found(Finding("weak", SERVER, result, changes=changes, tried="all that follows ran with it"))

    # ------------------------------------------------------------------------------------------------------- the models

    async def _examine_models(self, http: Http | None, base: str | None) -> None:
        road = self._trial.road
        assert road is not None
        self._show.waiting("the server's health")
        health = await road.backend.health()
        ready = health.state == "ready"
        self._found(Finding("ok" if ready else "FAIL", HEALTH, f"{health.state} {health.detail}".strip()))
        listed = await road.listed()
        found, about = subjects(self._trial.config, self._report.place, self._asked, listed)
        self._found(about)
        around = Around(self._show, self._words, listed, self._deep, base, http)
        for subject in found:
            await self._examine_model(around, subject)

    async def _examine_model(self, around: Around, subject: Subject) -> None:
        assert self._trial.road is not None
        model = ModelReport(subject.model)
        self._report.models.append(model)
        self._show.model(model)
        asker = Asker(self._trial.road, subject.model, self._words)
        treatment = Treatment(self._trial, asker, self._show)
        examination = ModelExamination(around, subject, model, treatment)
        try:
            await examination.run()
        finally:
            self._trial = treatment.trial
        model.clients = judged([*self._report.findings, *model.findings], examination.windows)
        self._show.clients(model)
